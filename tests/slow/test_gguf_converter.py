"""What we save goes through llama.cpp's own converter, whose file holds the weights that ours does.

`LLAMA_CPP_CONVERTER` is its convert_hf_to_gguf.py, which lies in llama.cpp's source beside the folder `conversion`. It
needs transformers and runs as a process of its own. How a tokenizer splits text it knows by a hash of published ones
only: here it is told.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import clearseek
from clearseek.config.model import ModelConfig
from clearseek.model.checkpoint import save_model
from clearseek.model.export import export_model
from clearseek.model.gguf.header import read_header
from clearseek.model.gguf.read import load_gguf
from clearseek.text.tokenizer import Tokenizer
from tests.model.gguf_models import OF_FAMILIES, family_config
from tests.model.mxfp4 import quantise
from tests.model.tiny import GROUPED, LATENT, tiny_model
from tests.slow.gguf_logits import llama_cpp_logits

pytest.importorskip("gguf", reason="the gguf library is absent")

CONVERTER = os.environ.get("LLAMA_CPP_CONVERTER", "")
PEERS = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
PYTHON = sys.executable if importlib.util.find_spec("transformers") else str(PEERS)
if not Path(CONVERTER).is_file():
    pytest.skip(
        "no llama.cpp converter: LLAMA_CPP_CONVERTER has to name its convert_hf_to_gguf.py",
        allow_module_level=True,
    )
if not Path(PYTHON).exists():
    pytest.skip(
        "transformers is absent, which llama.cpp's converter needs; make peers brings it",
        allow_module_level=True,
    )

DRIVER = """
import runpy, sys
from pathlib import Path

script = sys.argv[1]
sys.path.insert(0, str(Path(script).parent))
from conversion.base import TextModel
from conversion.deepseek import DeepseekV32Model

TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
DeepseekV32Model.set_vocab = TextModel._set_vocab_gpt2  # its own wants text to begin with bos
sys.argv = sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""
CONFIGS = {
    "llama": ModelConfig(family="llama", **GROUPED),
    "qwen3": ModelConfig(family="qwen3", **GROUPED, head_dim=12, tie_word_embeddings=True),
    "deepseek_v3": ModelConfig(**LATENT),
    "hy_v3": OF_FAMILIES["hy_v3"],
    "gpt_oss": OF_FAMILIES["gpt-oss"],
    "deepseek_v32": OF_FAMILIES["deepseek32"],
}


def convert(directory, path):
    """llama.cpp's own file of a directory, in fp32."""
    command = [PYTHON, "-c", DRIVER, CONVERTER, str(directory), "--outfile", str(path)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--outtype", "f32"], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]


def saved_by_clearseek(config, directory):
    """A directory that `clearseek.save` wrote, with a tokenizer of its own."""
    tokenizer = Tokenizer.train(["Let me check: 12 + 5 = 17.\n", "먼저 12 + 5 = 17 입니다.\n"] * 20, 320)
    model = tiny_model(config.model_copy(update={"vocab_size": tokenizer.vocab_size}))
    first = directory / "first"
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    save_model(model, first, **ids, dtype=torch.float32)
    tokenizer.save(first)
    clearseek.save(clearseek.load(first, dtype="float32"), directory / "saved")
    return model, directory / "saved"


@pytest.mark.parametrize("name", CONFIGS)
def test_what_clearseek_saves_is_what_llama_cpps_converter_reads(name, tmp_path):
    model, directory = saved_by_clearseek(CONFIGS[name], tmp_path)
    theirs, ours = tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    convert(directory, theirs)
    export_model(directory, "gguf", "f32", ours)
    state = model.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in load_gguf(theirs).state_dict().items())
    found, expected = read_header(theirs).tensors, read_header(ours).tensors
    assert {(t.name, t.shape, t.type_name) for t in found.values()} == {
        (t.name, t.shape, t.type_name) for t in expected.values()
    }
    assert torch.equal(llama_cpp_logits(theirs, model), llama_cpp_logits(ours, model))


def test_gpt_oss_in_mxfp4_as_llama_cpp_repacks_it_is_what_we_read_from_its_published_form(tmp_path):
    config = family_config("GptOssForCausalLM", 0, hidden_size=64, intermediate_size=32)
    _model, directory = saved_by_clearseek(config, tmp_path)
    quantise(directory)
    convert(directory, tmp_path / "theirs.gguf")
    export_model(directory, "gguf", "mxfp4", tmp_path / "ours.gguf")
    found, expected = (read_header(tmp_path / f"{name}.gguf") for name in ("theirs", "ours"))
    experts = [name for name in expected.tensors if name.endswith("_exps.weight")]
    assert {found.tensors[name].type_name for name in experts} == {"MXFP4"}
    published = clearseek.load(directory, dtype="float32").decoder.state_dict()
    for back in (load_gguf(tmp_path / "theirs.gguf"), load_gguf(tmp_path / "ours.gguf")):
        for name, tensor in back.state_dict().items():
            if "feed_forward.gate_up" in name or "feed_forward.down" in name:
                assert torch.equal(tensor, published[name]), name
    assert load_gguf(tmp_path / "theirs.gguf").config == load_gguf(tmp_path / "ours.gguf").config
