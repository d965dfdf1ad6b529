"""gpt-oss's published weights, MXFP4: opened by us and by transformers, the same logits."""

import pytest
import torch

from clearseek.model.checkpoint import load_model, save_model
from clearseek.model.families import config_from_published
from tests.model.mxfp4 import quantise
from tests.model.published import config_json
from tests.model.tiny import tiny_model

transformers = pytest.importorskip("transformers")

from tests.model.test_parity_families import TOLERANCE, our_logits, some_tokens  # noqa: E402


def test_gpt_oss_in_mxfp4(tmp_path):
    published = config_json("GptOssForCausalLM", 0) | {"hidden_size": 64, "intermediate_size": 32}
    ours = tiny_model(config_from_published(published, tmp_path))
    save_model(ours, tmp_path, bos_id=None, eos_id=None, pad_id=None, dtype=torch.bfloat16)
    quantise(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path,
        dtype=torch.bfloat16,
        attn_implementation="eager",
        quantization_config=transformers.Mxfp4Config(dequantize=True),
    )
    theirs = theirs.float().eval()
    model = load_model(tmp_path)
    tokens = some_tokens(model, rows=2)
    with torch.no_grad():
        expected, logits = theirs(tokens).logits, our_logits(model, tokens)
    assert expected.abs().max() > 1
    assert (logits - expected).abs().max() <= TOLERANCE
