"""New tokens through a model's layers with the GPU's kernels: rows side by side, whoever's they are.

Nothing here asks the GPU for a number, so that all of it can be captured in a graph.

Shapes: N rows, H heads, C hidden size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.gpu.activation import swiglu, weigh
from clearseek.engine.gpu.attention import Heads, Rows, attend, attend_latent
from clearseek.engine.gpu.experts import sort_by_expert
from clearseek.engine.gpu.norms import add_rms_norm, rms_norm
from clearseek.engine.gpu.packed import Packed
from clearseek.engine.gpu.products import Tiles, product, product_by_head, product_by_tile
from clearseek.engine.gpu.rotary import rotate
from clearseek.model.attention import Cache, GroupedQueryAttention, LatentAttention
from clearseek.model.decoder import Decoder, Layer, MultiTokenModule
from clearseek.model.experts import MixtureOfExperts
from clearseek.model.layers import RMSNorm
from clearseek.model.rotary import query_growth

Tables = dict[str, tuple[Tensor, Tensor]]  # cos and sin of every position, by type of layer
Note = Callable[[int, Tensor, Tensor, Tensor], None]  # layer, blocks, places, chosen experts as a mask


@dataclass
class Walk:
    """Rows on their way through `model`, whose weights are `packed`; `note` is told which experts they go to."""

    model: Decoder
    packed: Packed
    rows: Rows
    tables: Tables
    note: Note | None = None

    def __post_init__(self) -> None:
        rows = self.rows
        self.block = rows.tables[rows.slots, rows.positions // BLOCK_TOKENS].long()
        self.place = rows.positions % BLOCK_TOKENS
        growth = query_growth(self.model.config, rows.positions[None])
        self.growth = None if growth is None else growth[0, :, 0]  # [N, 1]

    def through_layers(self, tokens: Tensor, caches: list[Cache]) -> tuple[Tensor, Tensor]:
        """What the layers leave of tokens [N]: the stream in fp32 and its last norm, both [N, C]."""
        stream, delta = self.embed(tokens), None
        for index, (layer, cache) in enumerate(zip(self.model.layers, caches, strict=True)):
            assert isinstance(layer, Layer)
            delta = self.layer(layer, f"layers.{index}", stream, delta, cache)
        return stream, self.normed(stream, delta, self.model.norm, "norm")

    def through_module(self, tokens: Tensor, states: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
        """The same of the first multi-token module, by `states` [N, C] and the tokens that follow them."""
        module, name = self.model.mtp[0], "mtp.0"
        assert isinstance(module, MultiTokenModule)
        halves = [
            self.normed(self.embed(tokens), None, module.embedding_norm, f"{name}.embedding_norm"),
            self.normed(states, None, module.state_norm, f"{name}.state_norm"),
        ]
        joined = torch.cat(halves[::-1] if module.state_first else halves, dim=-1)
        stream = self.packed.map(joined, f"{name}.join").float()
        delta = self.layer(module.layer, f"{name}.layer", stream, None, cache)
        norm = "norm" if module.norm is None else f"{name}.norm"
        return stream, self.normed(stream, delta, self.model.last_norm(module), norm)

    def scores(self, states: Tensor) -> Tensor:
        """Scores [..., V] in fp32 of final states [..., C]."""
        return product(states, self.packed.matrices["head"], torch.float32)

    def embed(self, tokens: Tensor) -> Tensor:
        """The stream's beginning, [N, C] in fp32."""
        return F.embedding(tokens, self.packed.embedding).float()

    def normed(self, stream: Tensor, delta: Tensor | None, norm: RMSNorm, name: str) -> Tensor:
        """The stream's norm [N, C] in the compute dtype; what a layer adds to it, if anything, is added first."""
        weight = self.packed.vectors[f"{name}.weight"]
        if delta is None:
            return rms_norm(stream, weight, norm.eps, self.packed.dtype)
        return add_rms_norm(stream, delta, weight, norm.eps)

    def layer(self, layer: Layer, name: str, stream: Tensor, delta: Tensor | None, cache: Cache) -> Tensor:
        """What a layer adds last, [N, C], not yet in the stream; `delta` is what the one before left so."""
        normed = self.normed(stream, delta, layer.attention_norm, f"{name}.attention_norm")
        attention = layer.attention
        if isinstance(attention, LatentAttention):
            mixed = self.latent(attention, f"{name}.attention", normed, self.tables[layer.layer_type], cache)
        else:
            mixed = self.grouped(attention, f"{name}.attention", normed, self.tables[layer.layer_type], cache)
        if layer.mixed_norm is not None:
            mixed = self.normed(mixed, None, layer.mixed_norm, f"{name}.mixed_norm")
        normed = self.normed(stream, mixed, layer.feed_forward_norm, f"{name}.feed_forward_norm")
        if isinstance(layer.feed_forward, MixtureOfExperts):
            output = self.experts(layer.feed_forward, f"{name}.feed_forward", normed)
        else:
            output = self.feed_forward(f"{name}.feed_forward", normed)
        if layer.fed_norm is None:
            return output
        return self.normed(output, None, layer.fed_norm, f"{name}.fed_norm")

    def grouped(
        self,
        attention: GroupedQueryAttention,
        name: str,
        x: Tensor,
        tables: tuple[Tensor, Tensor],
        cache: Cache,
    ) -> Tensor:
        """Grouped-query attention of x [N, C]; its keys and values join the cache."""
        key, value = self.packed.map(x, f"{name}.kv").split(attention.cache_sizes, dim=-1)
        parts = (
            (self.packed.map(x, f"{name}.q"), attention.num_heads, attention.q_norm, "q_norm"),
            (key, attention.kv_heads, attention.k_norm, "k_norm"),
        )
        query, key = (
            rotate(
                heads.unflatten(-1, (count, -1)), tables, self.rows.positions,
                None if norm is None else (self.packed.vectors[f"{name}.{which}.weight"], norm.eps),
                attention.pairs, first=True, norm_after=attention.norm_after,
            )
            for heads, count, norm, which in parts
        )  # fmt: skip
        self.write(cache, key.flatten(1), value * attention.value_scale)
        seen = Heads(attention.scale, attention.window or 0, self.packed.vectors.get(f"{name}.sinks"))
        mixed = attend(self.grown(query), cache[0], cache[1], self.rows, seen)
        return self.packed.map(mixed.flatten(1), f"{name}.out")

    def latent(
        self, attention: LatentAttention, name: str, x: Tensor, tables: tuple[Tensor, Tensor], cache: Cache
    ) -> Tensor:
        """Latent attention of x [N, C] in the absorbed form; its latents join the cache."""
        source, positions = x, self.rows.positions
        if attention.has_query_latent:
            source = self.packed.map(x, f"{name}.q_a")
            source = self.normed(source, None, attention.q_norm, f"{name}.q_norm")
        query = self.packed.map(source, f"{name}.q").unflatten(-1, (attention.num_heads, -1))
        query = self.grown(rotate(query, tables, positions, pairs=attention.pairs))
        latent, key = self.packed.map(x, f"{name}.kv_a").split((attention.rank, attention.rope_size), dim=-1)
        key = rotate(key.unsqueeze(1), tables, positions, pairs=attention.pairs).squeeze(1)
        latent = self.normed(latent, None, attention.kv_norm, f"{name}.kv_norm")
        self.write(cache, torch.cat((latent, key), dim=-1))
        nope, turned = query.split((attention.nope_size, attention.rope_size), dim=-1)
        in_latent = product_by_head(nope, self.packed.matrices[f"{name}.kv_b.weight.keys"])
        mixed = attend_latent(in_latent, turned.contiguous(), cache[0], self.rows, Heads(attention.scale))
        values = product_by_head(mixed, self.packed.matrices[f"{name}.kv_b.weight.values"])
        return self.packed.map(values.flatten(1), f"{name}.out")

    def grown(self, query: Tensor) -> Tensor:
        """Queries [N, H, D], larger at later positions where the family does so."""
        return query if self.growth is None else query * self.growth[..., None].to(query.dtype)

    def write(self, cache: Cache, *entries: Tensor) -> None:
        """Entries [N, size] join each tensor of the cache [blocks, 64, size]."""
        for blocks, entry in zip(cache, entries, strict=True):
            blocks[self.block, self.place] = entry

    def feed_forward(self, name: str, x: Tensor) -> Tensor:
        """`down(silu(gate(x)) * up(x))` of x [N, C]."""
        return self.packed.map(swiglu(self.packed.map(x, f"{name}.gate_up")), f"{name}.down")

    def experts(self, experts: MixtureOfExperts, name: str, x: Tensor) -> Tensor:
        """Routed experts' and shared ones' sum for x [N, C]."""
        output = self.routed(experts, name, x)
        if experts.shared is None:
            return output
        shared = self.feed_forward(f"{name}.shared", x)
        if experts.shared_gate is not None:
            shared = shared * self.packed.map(x, f"{name}.shared_gate").sigmoid()
        return output + shared

    def routed(self, experts: MixtureOfExperts, name: str, x: Tensor) -> Tensor:
        """The chosen experts' sum for x [N, C], weighted by their gates in the order of their numbers."""
        router = self.packed.routers[f"{name}.router"]
        scores = product(x, self.packed.matrices[f"{name}.router.weight"], torch.float32)
        _, mask, gates = router.from_scores(scores if router.bias is None else scores + router.bias)
        if self.note is not None and name.startswith("layers."):
            self.note(int(name.split(".")[1]), self.block, self.place, mask)
        chosen = mask.to(torch.int8).topk(router.num_chosen, dim=-1).indices.sort(-1).values
        tiles, expert, places = sort_by_expert(chosen, mask.shape[-1])
        gate_up = product_by_tile(x, self.packed.matrices[f"{name}.gate_up"], tiles, len(expert))
        hidden = swiglu(self.biased(gate_up, f"{name}.gate_up", expert), experts.limit, experts.alpha)
        in_order = Tiles(tiles.firsts, tiles.counts, tiles.matrices)
        output = product_by_tile(hidden, self.packed.matrices[f"{name}.down"], in_order, len(expert))
        return weigh(self.biased(output, f"{name}.down", expert), places, gates.gather(-1, chosen))

    def biased(self, output: Tensor, name: str, expert: Tensor) -> Tensor:
        """Rows [N, out] with the biases of their experts [N], where there are any."""
        bias = self.packed.vectors.get(f"{name}_bias")
        return output if bias is None else output + bias.to(output.dtype)[expert]
