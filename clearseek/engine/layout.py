"""A model's weights laid out for `model/kernels/step.cpp`, which takes new tokens of many sequences through all layers.

`why_plain` says of a model what the kernels don't know of it; such models go through PyTorch: see `plain`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clearseek.config.model import LayerType, ModelConfig
from clearseek.engine.formats import GROUPS, Format
from clearseek.engine.matrices import Matrices, Matrix
from clearseek.engine.mixed_formats import Formats
from clearseek.engine.routes import Routes
from clearseek.model.attention import GroupedQueryAttention, LatentAttention
from clearseek.model.decoder import Decoder, Layer, MultiTokenModule
from clearseek.model.experts import MixtureOfExperts, routing_of
from clearseek.model.kernels.library import LANES, MAX_EXPERTS, MAX_HEAD, why_not
from clearseek.model.layers import SwiGLU
from clearseek.model.unread import Half

_NO_WEIGHT = (0, 0, 0, 0)
_FLOAT32 = Format("float32")


@dataclass
class Layout:
    """Numbers and addresses as step.cpp reads them; `kept` is what the addresses point at.

    Where it `expands`, long prompts go by the expanded form of latent attention. Without `copies` the embedding is the
    model's own, which must not change then. With `beside` it is the layout of a multi-token module, which shares head
    and embedding with the model's own.
    """

    model: Decoder
    form: Format | Formats
    copies: bool = True
    expands: bool = False
    module: MultiTokenModule | None = None
    beside: "Layout | None" = None
    kept: list[Tensor] = field(default_factory=list)
    num_bytes: int = 0  # of the matrices
    turning: dict[str, list[Tensor]] = field(default_factory=dict)  # rotary tables of each type of layer

    def __post_init__(self) -> None:
        assert why_plain(self.model, self.form) is None
        model, config = self.model, self.model.config
        self._matrices = Matrices(model, self.form)
        self.dtype = torch.float32 if self.form.name == "float32" else torch.bfloat16
        layers = model.layers if self.module is None else [self.module.layer]
        place = "layers" if self.module is None else "mtp"
        self.layers = [
            self._layer(layer, f"{place}.{i}") for i, layer in enumerate(layers) if isinstance(layer, Layer)
        ]
        self.types = [layer.layer_type for layer in layers if isinstance(layer, Layer)]
        beside = self.beside
        same = beside is not None and beside.form == self.form
        self.head: tuple[int, ...] = (
            beside.head
            if beside is not None and same
            else self._weight(model.head_weight, self.form.of("head"))
        )
        self.embedding: Tensor
        self.embedding_form: Format
        self.embedding, self.embedding_form = (
            self._embedding() if beside is None else (beside.embedding, beside.embedding_form)
        )
        head_size = config.head_size
        if config.is_latent:
            head_size = (config.qk_nope_head_dim or 0) + config.rotary_dim
        self.numbers = [
            config.hidden_size, len(self.layers), config.is_latent, config.num_heads, head_size, config.rotary_dim,
            config.value_size, config.kv_lora_rank or 0, config.rotates_pairs, config.qk_norm == "after_rotary",
            self.form.group, config.mtp_shares_norm, self.embedding.data_ptr(), self.embedding_form.number,
            self._address(model.last_norm(self.module).weight),
            *self.head, *self._joining(),
        ]  # fmt: skip
        first = model.layers[0]
        assert isinstance(first, Layer)
        scale = first.attention.scale
        constants = [config.rms_norm_eps, config.latent_norm_eps, scale, config.value_scale]
        constants += [config.swiglu_limit or 0.0, config.swiglu_alpha]
        self.constants = torch.tensor(constants, dtype=torch.float32)
        self.routing = routing_of(config)

    def _joining(self) -> tuple[int, ...]:
        """What joins a state with the embedding that follows it, which here comes first."""
        if self.module is None:
            return (*_NO_WEIGHT, 0, 0)
        weight = self.module.join.weight.detach()
        if self.module.state_first:
            weight = weight.roll(self.config.hidden_size, dims=1)
        norms = self.module.embedding_norm.weight, self.module.state_norm.weight
        return (*self._weight(weight, self.form.of("mtp.join")), *map(self._address, norms))

    @property
    def config(self) -> ModelConfig:
        """The model's."""
        return self.model.config

    def of_module(self, model: Decoder) -> "Layout":
        """The layout of `model`'s first multi-token module, beside that of the model itself."""
        module = model.mtp[0]
        assert isinstance(module, MultiTokenModule)
        return Layout(model, form_of_module(model, self.form), self.copies, self.expands, module, self)

    @property
    def _plain(self) -> Format:
        """As exact as the activations."""
        return Format("float32" if self.dtype == torch.float32 else "bfloat16")

    @property
    def cache_sizes(self) -> list[tuple[int, int]]:
        """Numbers that each of its layers keeps of one token: of its keys and of its values."""
        return [cache_size(self.config, kind) for kind in self.types]

    @property
    def width(self) -> int:
        """Columns of scores: the vocabulary filled up to whole lanes."""
        return -(-self.model.config.vocab_size // LANES) * LANES

    def tables(
        self, caches: Sequence[tuple[Tensor, Tensor]], length: int, routes: Routes | None = None
    ) -> tuple[Tensor, Tensor]:
        """The model's and the layers' numbers, with rotary tables for `length` positions and the layers' caches."""
        turns = self.model.turns(length, torch.device("cpu"))
        self.turning = {
            kind: [part.float().contiguous() for part in turn[:2]] for kind, turn in turns.items()
        }
        rows = []
        for index, (kind, fields, cache) in enumerate(zip(self.types, self.layers, caches, strict=True)):
            window = self.model.config.sliding_window if kind == "sliding_attention" else None
            turning = (part.data_ptr() for part in self.turning[kind])
            heads = 1 if self.model.config.is_latent else self.model.config.kv_heads_of(kind)
            routed = routes.address(index) if routes is not None else 0
            rows.append([*fields, *turning, heads, window or 0, *(part.data_ptr() for part in cache), routed])
        return torch.tensor(self.numbers, dtype=torch.int64), torch.tensor(rows, dtype=torch.int64)

    def _embedding(self) -> tuple[Tensor, Format]:
        """Plain rows, or what a file keeps in whole numbers laid out; the head itself where that is the same."""
        weight, kind = self.model.embedding.weight, self._matrices.kind(self.model.embedding.weight)
        if kind is not None:
            if self.model.head is not None or self.head[3] != kind.number:
                self._weight(weight, kind)
            return self.kept[-1], kind
        embedding = self._matrices.rows(weight)
        if embedding.dtype not in (torch.float32, torch.bfloat16):
            embedding = embedding.float()
        form = Format("float32" if embedding.dtype == torch.float32 else "bfloat16")
        is_own = self.copies and embedding.data_ptr() == weight.data_ptr()
        return embedding.clone() if is_own else embedding.contiguous(), form

    def _layer(self, layer: Layer, place: str) -> list[int]:
        """The fields of `StepLayer` up to the rotary tables."""
        attention, form = layer.attention, self.form.of(f"{place}.attention")
        norms: list[Tensor | None] = [layer.attention_norm.weight, layer.feed_forward_norm.weight]
        if isinstance(attention, LatentAttention):
            norms += [
                attention.q_norm.weight if attention.has_query_latent else None,
                None,
                attention.kv_norm.weight,
            ]
            weights, biases = self._latent(attention, form)
        else:
            norms += [norm.weight if norm else None for norm in (attention.q_norm, attention.k_norm)] + [None]
            weights, biases = self._grouped(attention, form)
        return [
            *map(self._address, norms), *(number for weight in weights for number in weight),
            *map(self._address, biases), *self._feed_forward(layer.feed_forward, place),
            *(self._address(norm.weight if norm else None) for norm in (layer.mixed_norm, layer.fed_norm)),
        ]  # fmt: skip

    def _grouped(
        self, attention: GroupedQueryAttention, form: Format
    ) -> tuple[list[tuple[int, ...]], list[Tensor | None]]:
        matrices = [self._weight(part.weight, form) for part in (attention.q, attention.kv, attention.out)]
        weights = [_NO_WEIGHT, *matrices[:2], *[_NO_WEIGHT] * 3, matrices[2]]
        biases = self._rounded(attention.q.bias, attention.kv.bias, attention.out.bias)
        return weights, [*biases, attention.sinks]

    def _rounded(self, *biases: Tensor | None) -> list[Tensor | None]:
        """As training adds them, in the activations' dtype."""
        return [None if bias is None else bias.to(self.dtype) for bias in biases]

    def _latent(
        self, attention: LatentAttention, form: Format
    ) -> tuple[list[tuple[int, ...]], list[Tensor | None]]:
        low = self._weight(attention.q_a.weight, form) if attention.has_query_latent else _NO_WEIGHT
        weights = [
            low, self._weight(attention.q.weight, form), self._weight(attention.kv_a.weight, form),
            *self._latent_halves(attention, form),
            self._weight(attention.out.weight, form),
        ]  # fmt: skip
        query_bias = attention.q_a.bias if attention.has_query_latent else None
        return weights, [*self._rounded(query_bias, attention.kv_a.bias, attention.out.bias), None]

    def _latent_halves(self, attention: LatentAttention, form: Format) -> list[tuple[int, ...]]:
        """What moves queries into the latent [H, R, nope], makes keys [H, nope, R] and values [H, value, R] of it."""
        weight, stored = attention.kv_b.weight, self.model.stored
        if stored is not None and weight.is_meta:
            halves: tuple[Half, ...] = ("latent_keys", "latent_values")
            into, values = (self._keep(self._matrices.of(weight, form, half=half)[0]) for half in halves)
            turned = self._matrices.floats(weight, "latent_keys").transpose(1, 2) if self.expands else None
            keys = _NO_WEIGHT if turned is None else self._weight(turned, self._plain)
            return [into, keys, values]
        key_up, value_up = attention.absorbed_weights(weight.dtype)
        into = self._weight(key_up.transpose(1, 2), form)
        return [
            into,
            self._weight(key_up, form) if self.expands else _NO_WEIGHT,
            self._weight(value_up, form),
        ]

    def _feed_forward(self, feed_forward: MixtureOfExperts | SwiGLU, place: str) -> list[int]:
        own = feed_forward if isinstance(feed_forward, SwiGLU) else feed_forward.shared
        routed: list[tuple[int, ...]] = [_NO_WEIGHT] * 4
        biases: list[Tensor | None] = [None, None]
        if isinstance(feed_forward, MixtureOfExperts):
            router, form = feed_forward.router, self.form.of(f"{place}.experts")
            routed = [
                self._weight(router.weight, _FLOAT32),
                *self._weights(feed_forward.gate_up, form, 2), self._weight(feed_forward.down, form),
            ]  # fmt: skip
            biases = [router.selection_bias, router.bias]
        dense: list[tuple[int, ...]] = [_NO_WEIGHT] * 3
        if own is not None:
            form = self.form.of(f"{place}.feed_forward")
            dense = [*self._weights(own.gate_up.weight, form, 2), self._weight(own.down.weight, form)]
        return [
            *(number for weight in routed for number in weight), *map(self._address, biases),
            *(number for weight in dense for number in weight), *self._feed_forward_vectors(feed_forward, own),
        ]  # fmt: skip

    def _feed_forward_vectors(self, feed_forward: MixtureOfExperts | SwiGLU, own: SwiGLU | None) -> list[int]:
        """Biases of routed experts and of its own maps, and what gates shared experts."""
        vectors: list[Tensor | None] = [None] * 7
        if isinstance(feed_forward, MixtureOfExperts):
            if feed_forward.gate_up_bias is not None:
                vectors[:3] = *feed_forward.gate_up_bias.chunk(2, dim=1), feed_forward.down_bias
            if feed_forward.shared_gate is not None:
                vectors[6] = self._matrices.rows(feed_forward.shared_gate.weight)
        if own is not None and own.gate_up.bias is not None:
            vectors[3:6] = *own.gate_up.bias.chunk(2, dim=0), own.down.bias
        return [self._address(vector) for vector in vectors]

    def _weight(self, weight: Tensor, form: Format) -> tuple[int, ...]:
        """The fields of `Weight` for one matrix, or for several one behind the other."""
        return self._weights(weight, form, 1)[0]

    def _weights(self, weight: Tensor, form: Format, count: int) -> list[tuple[int, ...]]:
        """The same of `count` equal parts of one."""
        return [self._keep(matrix) for matrix in self._matrices.of(weight, form, count)]

    def _keep(self, matrix: Matrix) -> tuple[int, ...]:
        self.kept.append(matrix.laid)
        self.num_bytes += matrix.laid.numel()
        return (
            matrix.laid.data_ptr(), matrix.inputs, -(-matrix.outputs // LANES) * LANES, matrix.form.number,
        )  # fmt: skip

    def _address(self, vector: Tensor | None) -> int:
        if vector is None:
            return 0
        self.kept.append(vector.detach().float().contiguous())
        return self.kept[-1].data_ptr()


def form_of_module(model: Decoder, form: Format | Formats) -> Format | Formats:
    """How a multi-token module's weights are kept beside those of its model, which are in `form`.

    In int4 where its sizes allow it: a guess need not be exact, and the head is most of what one costs.
    """
    small = form if form.name == "int4" else Format("int4")
    return small if why_plain(model, small) is None else form


def cache_size(config: ModelConfig, kind: LayerType) -> tuple[int, int]:
    """Numbers that a layer of a type keeps of one token: of its keys and of its values.

    A latent is both: it lies there twice, once in the order for scores and once in that for values.
    """
    if config.is_latent:
        rank = config.kv_lora_rank or 0
        return rank + config.rotary_dim, rank
    heads = config.kv_heads_of(kind)
    return heads * config.head_size, heads * config.value_size


def why_plain(model: Decoder, form: Format | Formats) -> str | None:
    """What keeps a model from the kernels; None: nothing."""
    config = model.config
    if model.norm.weight.device.type != "cpu":  # matrices may still be in their file
        return "it is not on the CPU"
    if "fp8" in form.names:
        return "fp8 weights are multiplied on GPUs alone"
    reasons = (
        (why_not(), str(why_not())),
        (config.index_topk, "an indexer that chooses positions"),
        (config.has_shared_gate and config.mlp_bias, "a gate on shared experts with biases"),
        (
            config.rope_scaling is not None and config.rope_scaling.query_beta,
            "queries that grow with the position",
        ),
        (config.num_routed_experts > MAX_EXPERTS, f"more than {MAX_EXPERTS} experts"),
    )
    for is_so, reason in reasons:
        if is_so:
            return reason
    return _unfit_size(config, form)


def widest_group(config: ModelConfig, form: Format | Formats) -> int:
    """The widest that a format which widens finds in a model of these sizes; else its own."""
    fitting = (group for group in GROUPS[::-1] if _unfit_size(config, form.with_group(group)) is None)
    return next(fitting, form.group) if form.widens else form.group


def _unfit_size(config: ModelConfig, form: Format | Formats) -> str | None:
    """Rows are taken in whole lanes, and in whole groups where weights are quantised."""
    rank, rotary = config.kv_lora_rank or 0, config.rotary_dim
    nope = config.qk_nope_head_dim or 0
    vectors = {
        "hidden_size": config.hidden_size, "rotary size": rotary, "value size": config.value_size,
        "head size": nope + rotary if config.is_latent else config.head_size, "latent rank": rank,
    }  # fmt: skip
    inputs = {
        "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "moe_intermediate_size": config.moe_intermediate_size, "shared width": config.shared_size,
        "query rank": config.q_lora_rank or 0, "latent rank": rank, "nope size": nope,
        "attention width": config.num_heads * config.value_size,
    }  # fmt: skip
    step = form.group if form.is_quantised else LANES
    for name, size in [*vectors.items(), *inputs.items()]:
        if size % LANES:
            return f"its {name} ({size}) is not a multiple of {LANES}"
    for name, size in inputs.items():
        if size % step:
            return f"its {name} ({size}) is not a multiple of the group of {step}"
    if (nope + rotary if config.is_latent else config.head_size) > MAX_HEAD:
        return f"heads of more than {MAX_HEAD} numbers"
    return None
