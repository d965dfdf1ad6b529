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


@pytest.mark.parametrize("architecture", ["DeepseekV3ForCausalLM", "Qwen3MoeForCausalLM", "LlamaForCausalLM"])
def test_our_block_fp8_is_read_by_transformers(tmp_path, architecture):
    """On the processor it makes bf16 of it, as its own `finegrained_fp8` does where there is no GPU."""
    published = config_json(architecture, 0) | {
        "hidden_size": 256,
        "intermediate_size": 128,
        "vocab_size": 97,
    }
    published |= {"moe_intermediate_size": 128} if "moe_intermediate_size" in published else {}
    config = config_from_published(published, tmp_path / "config.json")
    save_model(
        tiny_model(config, std=0.05), tmp_path, bos_id=0, eos_id=1, pad_id=2, dtype=torch.float8_e4m3fn
    )
    settings = transformers.AutoConfig.from_pretrained(tmp_path).quantization_config
    parsed = transformers.FineGrainedFP8Config.from_dict(dict(settings))
    assert tuple(parsed.weight_block_size) == (128, 128)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.bfloat16, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    model = load_model(tmp_path, torch.bfloat16).float()
    tokens = some_tokens(model, rows=2)
    with torch.no_grad():
        expected, logits = theirs.float().eval()(tokens).logits, our_logits(model, tokens)
    assert expected.abs().max() > 0.5
    assert (logits - expected).abs().max() <= TOLERANCE
