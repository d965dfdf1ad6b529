"""Logits of a GGUF file as llama.cpp computes them, and as we do, for the slow tests that compare the two."""

import numpy as np
import pytest
import torch

from tests.model.tiny import some_tokens

LENGTH = 40


@torch.no_grad()
def ours(model):
    tokens = some_tokens(model.config, 1, LENGTH)
    return model.logits(model(tokens, torch.ones_like(tokens), depth=0).states)[0]


def llama_cpp_logits(path, model):
    """llama.cpp's logits [T, V] of the same tokens, its cache in fp32 too.

    Without its own layouts of weights: those for AMX abort on tensors as small or odd as these.
    """
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is absent")
    settings = {"n_ctx": 64, "n_threads": 1, "type_k": 0, "type_v": 0, "flash_attn": False, "verbose": False}
    defaults = llama_cpp.llama_cpp.llama_model_default_params

    def plain():
        params = defaults()
        params.use_extra_bufts = False
        return params

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama_cpp.llama_cpp, "llama_model_default_params", plain)
        opened = llama_cpp.Llama(str(path), logits_all=True, **settings)
    opened.eval(some_tokens(model.config, 1, LENGTH)[0].tolist())
    logits = torch.from_numpy(np.array(opened.scores[:LENGTH]))
    opened.close()
    return logits
