"""A published checkpoint's tensors as pieces of our parameters, and what every family has in common."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from clearseek.config.model import ModelConfig

Index = tuple[int | slice, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """One published tensor, and where it lies in one of ours.

    An `own` piece carries weights. A `copy` repeats another's, because the published format does; an `alias`
    is such a copy that others write and we don't. Both may be absent, and must be equal where present.
    """

    published: str
    ours: str
    index: Index = ()
    kind: Literal["own", "copy", "alias"] = "own"

    def of(self, tensor: Tensor) -> Tensor:
        """The view of our tensor that the published one holds."""
        return tensor[self.index]

    def published_shape(self, view: Tensor) -> list[int]:
        """The shape of the published tensor that `view`, made by `of`, holds."""
        return list(view.shape)


LayerPieces = Callable[[ModelConfig, int, str, str], Iterator[Piece]]


def model_pieces(config: ModelConfig, attention: LayerPieces, feed_forward: LayerPieces) -> Iterator[Piece]:
    """Embedding, every layer with its norms, final norm and head; the two callables fill in the layers."""
    yield Piece("model.embed_tokens.weight", "embedding.weight")
    for number in range(config.num_layers):
        names = f"model.layers.{number}", f"layers.{number}"
        yield from layer_pieces(config, number, *names, attention, feed_forward)
    yield Piece("model.norm.weight", "norm.weight")
    if config.tie_word_embeddings:
        yield Piece("lm_head.weight", "embedding.weight", kind="alias")
    else:
        yield Piece("lm_head.weight", "head.weight")


def layer_pieces(
    config: ModelConfig,
    number: int,
    published: str,
    ours: str,
    attention: LayerPieces,
    feed_forward: LayerPieces,
) -> Iterator[Piece]:
    """One layer, published under the prefix `published`, ours under `ours`."""
    yield Piece(f"{published}.input_layernorm.weight", f"{ours}.attention_norm.weight")
    yield from attention(config, number, f"{published}.self_attn", f"{ours}.attention")
    yield Piece(f"{published}.post_attention_layernorm.weight", f"{ours}.feed_forward_norm.weight")
    yield from feed_forward(config, number, f"{published}.mlp", f"{ours}.feed_forward")


def grouped_query_pieces(config: ModelConfig, number: int, published: str, ours: str) -> Iterator[Piece]:
    """Grouped-query attention: we keep the keys' and values' maps as one."""
    width = config.kv_heads * config.head_size
    yield Piece(f"{published}.q_proj.weight", f"{ours}.q.weight")
    yield Piece(f"{published}.k_proj.weight", f"{ours}.kv.weight", (slice(0, width),))
    yield Piece(f"{published}.v_proj.weight", f"{ours}.kv.weight", (slice(width, 2 * width),))
    yield Piece(f"{published}.o_proj.weight", f"{ours}.out.weight")
    if config.has_qk_norm:
        yield Piece(f"{published}.q_norm.weight", f"{ours}.q_norm.weight")
        yield Piece(f"{published}.k_norm.weight", f"{ours}.k_norm.weight")


def dense_pieces(config: ModelConfig, number: int, published: str, ours: str) -> Iterator[Piece]:
    """A dense feed-forward."""
    gate_up, down = f"{ours}.gate_up.weight", f"{ours}.down.weight"
    yield from swiglu_pieces(published, gate_up, down, config.intermediate_size)


def swiglu_pieces(published: str, gate_up: str, down: str, width: int, index: Index = ()) -> Iterator[Piece]:
    """Gate, up and down of one SwiGLU of `width`; `index` is its place in stacked experts."""
    yield Piece(f"{published}.gate_proj.weight", gate_up, (*index, slice(0, width)))
    yield Piece(f"{published}.up_proj.weight", gate_up, (*index, slice(width, 2 * width)))
    yield Piece(f"{published}.down_proj.weight", down, index)
