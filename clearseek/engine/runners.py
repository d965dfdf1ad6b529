"""What computes for the engine: which runner suits a model, and the copy of its weights that PyTorch computes with."""

import copy
from typing import TYPE_CHECKING, TypeAlias

import torch

from clearseek.engine.formats import Format
from clearseek.engine.fused_runner import FusedRunner
from clearseek.engine.gpu import support
from clearseek.engine.layout import Layout, widest_group
from clearseek.engine.layout import why_plain as why_not_fused
from clearseek.engine.mixed_formats import Formats
from clearseek.engine.plain_runner import PlainRunner
from clearseek.model.decoder import Decoder
from clearseek.model.experts import Router
from clearseek.model.indexer import Indexer
from clearseek.model.layers import RMSNorm

if TYPE_CHECKING:
    from clearseek.engine.gpu.runner import GpuRunner

AnyRunner: TypeAlias = "FusedRunner | GpuRunner | PlainRunner"
_STEP_TOKENS = 512, 4096  # new tokens of a step, of large models and of the smallest
_STEP_WORK = 4_000_000_000  # tokens times weights of a small model's step: some 20 ms on two cores


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


def why_plain(model: Decoder, form: Format | Formats) -> str | None:
    """What keeps a model from the kernels of its device; None: nothing."""
    if model.norm.weight.device.type == "cuda":
        return support.why_unasked() or support.why_not(model, form)
    return why_not_fused(model, form)


def settled(form: Format | Formats, model: Decoder) -> Format | Formats:
    """A format with the widest group that suits a model, where it widens. What a file keeps in groups stays in them."""
    if not form.widens:
        return form
    is_free = model.stored is None or not model.stored.kinds
    return form.with_group(widest_group(model.config, form) if is_free else form.group)


def usual_step_tokens(model: Decoder) -> int:
    """New tokens of a step: few take long in a large model, and a small one would spend its time between steps."""
    least, most = _STEP_TOKENS
    weights = sum(parameter.numel() for parameter in model.parameters())
    return min(max(_STEP_WORK // weights, least), most)


def runner_of(
    model: Decoder,
    form: Format | Formats,
    dtype: torch.dtype,
    num_blocks: int,
    copies: bool,
    predicts: bool = False,
    exact: bool = True,
) -> AnyRunner:
    """The kernels where they know the model, else PyTorch; where it `predicts` with the multi-token module too.

    Where it needn't be `exact`, they read long prompts of latent attention in the expanded form.
    """
    if why_plain(model, form) is not None:
        return PlainRunner(model, dtype, num_blocks, predicts)
    if model.norm.weight.device.type == "cpu":
        return FusedRunner(Layout(model, form, copies, expands=not exact), num_blocks, predicts)
    from clearseek.engine.gpu.runner import GpuRunner  # brings Triton, which is not everywhere

    return GpuRunner(model, form, num_blocks, predicts, copies)
