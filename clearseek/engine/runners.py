"""What computes for the engine: which runner suits a model, and the copy of its weights that PyTorch computes with."""

import copy

import torch

from clearseek.engine.formats import Format
from clearseek.engine.fused_runner import FusedRunner
from clearseek.engine.layout import Layout, why_plain
from clearseek.engine.mixed_formats import Formats
from clearseek.engine.plain_runner import PlainRunner
from clearseek.model.decoder import Decoder
from clearseek.model.experts import Router
from clearseek.model.indexer import Indexer
from clearseek.model.layers import RMSNorm


def inference_copy(model: Decoder, dtype: torch.dtype) -> Decoder:
    """A frozen copy with its layers in the compute dtype; what training keeps in fp32 stays in fp32.

    Routers and indexers decide by small differences: rounded weights would choose otherwise.
    """
    copied = copy.deepcopy(model).requires_grad_(False).eval()
    for layer in copied.layers:
        layer.to(dtype)
    for module in copied.modules():
        if isinstance(module, (RMSNorm, Router, Indexer)):
            module.float()
    with torch.no_grad():
        for ours, theirs in zip(copied.state_dict().values(), model.state_dict().values(), strict=True):
            ours.copy_(theirs)
    return copied


def runner_of(
    model: Decoder,
    form: Format | Formats,
    dtype: torch.dtype,
    num_blocks: int,
    copies: bool,
    predicts: bool = False,
) -> FusedRunner | PlainRunner:
    """The kernels where they know the model, else PyTorch; where it `predicts` with the multi-token module too."""
    if why_plain(model, form) is None:
        return FusedRunner(Layout(model, form, copies), num_blocks, predicts)
    return PlainRunner(model, dtype, num_blocks, predicts)
