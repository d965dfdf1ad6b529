"""What exact mode costs: that training computes a token's log-probability bit for bit as the engine does.

Dense models pay nothing. Latent attention is trained in the form that the engine decodes in, which for large ranks is
more arithmetic than the expanded one; sampling is the same in either case.
"""

import time

import torch

from clearseek.model.attention import LatentAttention, Visible
from clearseek.model.decoder import Decoder, Layer
from clearseek.model.kernels.library import fits

TOKENS = 512
_TURNS = 3


def exact_price(model: Decoder, tokens: int = TOKENS) -> float | None:
    """How much longer one layer of `model` learns from a row of so many tokens, as a share; None: not at all.

    Forward and backward in bf16 of its last layer, the better of three turns in each form.
    """
    layer = model.layers[-1]
    assert isinstance(layer, Layer)
    weight = layer.attention_norm.weight
    if not isinstance(layer.attention, LatentAttention) or weight.is_meta or not fits(torch.bfloat16, weight):
        return None
    tokens = min(tokens, model.config.max_position_embeddings)
    seconds = {False: float("inf"), True: float("inf")}
    try:
        for _ in range(1 + _TURNS):
            for absorbs in seconds:
                layer.attention.absorbs = absorbs
                seconds[absorbs] = min(seconds[absorbs], _turn(model, layer, tokens))
    finally:
        layer.attention.absorbs = False
    return seconds[True] / seconds[False] - 1


def _turn(model: Decoder, layer: Layer, tokens: int) -> float:
    """Seconds of one pass there and back; its weights' gradients are computed and dropped."""
    stream = torch.randn(1, tokens, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    segments = torch.ones(1, tokens, dtype=torch.int32)
    turns, visible = model.turns(tokens, stream.device), Visible.of(segments, torch.bfloat16)
    weights = [p for p in layer.parameters() if p.requires_grad]
    with torch.enable_grad():
        started = time.perf_counter()
        result, _ = layer(stream.requires_grad_(), turns, visible, torch.bfloat16)
        torch.autograd.grad(result.sum(), [stream, *weights], allow_unused=True)
    return time.perf_counter() - started
