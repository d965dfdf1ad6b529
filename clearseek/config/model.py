"""What a decoder is: the switches that every family of checkpoints is a setting of. No torch here."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MAX_MTP_LAYERS = 4
GROUPED_PRODUCT_MULTIPLE = 8  # rows of grouped matrix products are whole 16 bytes, in bf16 too

# A slip of the finger is refused before anything counts that far: ten times what the largest models have.
Layers = Annotated[int, Field(le=2**11)]
Size = Annotated[int, Field(le=2**21)]
Positions = Annotated[int, Field(le=2**30)]

LayerType = Literal["full_attention", "sliding_attention"]
_FROM_LIST = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
LayerTypes = Annotated[tuple[LayerType, ...], _FROM_LIST]
LayerNumbers = Annotated[tuple[int, ...], _FROM_LIST]

# switches that a family's name alone sets
IMPLIED: dict[str, dict[str, Any]] = {
    "deepseek_v3": {"rotates_pairs": True},
    "qwen3": {"qk_norm": "before_rotary"},
}
LATENT_SIZES = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_NOT_GROUPED = ("q_lora_rank", *LATENT_SIZES, "num_routed_experts", "num_mtp_layers")
# families that recipes may begin from random weights: what each needs, and what it has no place for
BEGINNINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "deepseek_v3": (LATENT_SIZES, ()),
    "qwen3": ((), _NOT_GROUPED),
    "llama": ((), _NOT_GROUPED),
}


class Table(BaseModel):
    """A table of a recipe: unknown keys and other types are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RopeScaling(Table):
    """How rotary frequencies stretch beyond the context that a model was first trained on.

    `yarn` is arXiv:2309.00071 with DeepSeek's softmax correction, `llama3` Llama 3.1's, `linear` divides every
    frequency by `factor`, `ntk_alpha` is Hunyuan's fixed stretch of the base.
    """

    kind: Literal["yarn", "llama3", "linear", "ntk_alpha"] = "yarn"
    factor: float = Field(default=1.0, ge=1)
    original_max_position_embeddings: Positions | None = Field(default=None, gt=0)
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = Field(default=1.0, ge=0)
    attention_factor: float | None = Field(default=None, gt=0, description="instead of what mscale gives")
    truncate: bool = Field(default=True, description="round the bounds of YaRN's ramp to whole pairs")
    low_freq_factor: float = Field(default=1.0, gt=0)
    high_freq_factor: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=1.0, ge=1)
    query_beta: float = Field(
        default=0.0, ge=0, description="queries grow by 1 + beta · ln(1 + ⌊position / original⌋) (Llama 4)"
    )

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        needs_original = self.kind in ("yarn", "llama3") or self.query_beta > 0
        if needs_original and self.original_max_position_embeddings is None:
            raise ValueError(f"kind {self.kind} needs original_max_position_embeddings")
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor ({self.high_freq_factor}) must be above "
                f"low_freq_factor ({self.low_freq_factor})"
            )
        return self

    @model_validator(mode="after")
    def _read_alike_everywhere(self) -> Self:
        if self.mscale <= 0 or (self.mscale_all_dim == 0 and self.mscale != 1):
            raise ValueError(
                f"mscale ({self.mscale}) with mscale_all_dim ({self.mscale_all_dim}) is read differently by "
                "different libraries; give both, or 1 and 0"
            )
        return self


class ModelConfig(Table):
    """One decoder, its switches. What a switch's default means is what DeepSeek-V3 and Llama do.

    `family` names the published checkpoint format that the model is saved in; some families imply switches.
    Attention is latent where there is a `kv_lora_rank`, else grouped-query.
    """

    family: str
    vocab_size: Size = Field(default=0, ge=0, description="0: taken from the tokenizer")
    hidden_size: Size = Field(gt=0)
    num_layers: Layers = Field(gt=0)
    num_heads: Size = Field(gt=0)
    intermediate_size: Size = Field(gt=0, description="width of a dense feed-forward")
    max_position_embeddings: Positions = Field(default=4096, gt=0)
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    rope_theta: float = Field(default=10_000.0, gt=1)
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    initializer_range: float = Field(default=0.02, gt=0)

    # attention of either kind
    v_head_dim: Size | None = Field(default=None, gt=0, description="default: the size of a key head")
    qkv_bias: bool = Field(default=False, description="of latent attention: on its two down-projections")
    out_bias: bool = False
    rotates_pairs: bool = Field(default=False, description="rotary turns neighbours, not halves, of a head")
    sandwich_norm: bool = Field(default=False, description="norms on what a layer's halves add, too")

    # grouped-query attention
    num_key_value_heads: Size | None = Field(default=None, gt=0, description="default: num_heads")
    head_dim: Size | None = Field(default=None, gt=0, description="default: hidden_size / num_heads")
    qk_norm: Literal["none", "before_rotary", "after_rotary"] = "none"
    rotary_head_dim: Size | None = Field(default=None, gt=0, description="first part of a head that turns")
    value_scale: float = Field(default=1.0, gt=0)
    sliding_window: Positions | None = Field(
        default=None, gt=0, description="positions seen, itself included"
    )
    layer_types: LayerTypes = Field(default=(), description="default: every layer sees everything")
    sliding_rope_theta: float | None = Field(default=None, gt=1, description="default: rope_theta")
    sliding_key_value_heads: Size | None = Field(default=None, gt=0, description="default: as elsewhere")
    sinks: LayerTypes = Field(default=(), description="layers whose softmax has a learned sink")

    # multi-head latent attention
    q_lora_rank: Size | None = Field(default=None, gt=0)
    kv_lora_rank: Size | None = Field(default=None, gt=0)
    qk_nope_head_dim: Size | None = Field(default=None, gt=0)
    qk_rope_head_dim: Size | None = Field(default=None, gt=0)
    latent_norm_eps: float = Field(default=1e-6, gt=0)
    index_topk: Positions | None = Field(default=None, gt=0, description="positions that the indexer chooses")
    index_num_heads: Size | None = Field(default=None, gt=0)
    index_head_dim: Size | None = Field(default=None, gt=0)

    # dense feed-forward
    mlp_bias: bool = False

    # mixture of experts
    num_routed_experts: Size = Field(default=0, ge=0, description="0: every layer is dense")
    num_shared_experts: Size = Field(default=0, ge=0)
    num_experts_per_token: Size = Field(default=0, ge=0)
    moe_intermediate_size: Size = Field(default=0, ge=0)
    shared_intermediate_size: Size | None = Field(
        default=None, gt=0, description="of all shared ones together"
    )
    num_dense_layers: Layers = Field(default=0, ge=0, description="the first layers, which stay dense")
    dense_layers: LayerNumbers = Field(default=(), description="further layers that stay dense")
    num_expert_groups: Size = Field(default=1, ge=1)
    num_limited_groups: Size = Field(default=1, ge=1, description="groups a token may choose experts from")
    group_score: Literal["two_best", "best"] = "two_best"
    routed_scaling_factor: float = Field(default=1.0, gt=0)
    router_scores: Literal["sigmoid", "softmax"] = "sigmoid"
    has_selection_bias: bool = Field(default=True, description="balances the choice of experts")
    has_router_bias: bool = False
    normalises_gates: bool = Field(default=True, description="the chosen experts' gates sum to one")
    gate_floor: float = Field(default=0.0, ge=0, description="least sum that gates are divided by")
    has_shared_gate: bool = Field(default=False, description="a sigmoid gate on the shared experts")
    expert_bias: bool = False
    swiglu_limit: float | None = Field(default=None, gt=0, description="gpt-oss's clamped SwiGLU")
    swiglu_alpha: float = Field(default=1.702, gt=0)

    num_mtp_layers: int = Field(
        default=0, ge=0, le=MAX_MTP_LAYERS, description="multi-token prediction depth"
    )
    mtp_kind: Literal["deepseek", "mimo", "mimo_v2", "hy_v3", "ernie"] = "deepseek"

    @property
    def is_latent(self) -> bool:
        """Whether attention is multi-head latent attention."""
        return self.kv_lora_rank is not None

    @property
    def absorbs_cheaply(self) -> bool:
        """Whether latent attention costs about as much in its absorbed form as expanded, and so exactness little.

        It scores a token by its latent, which then is no longer than the key and value that it becomes in a head.
        """
        return (self.kv_lora_rank or 0) <= (self.qk_nope_head_dim or 0) + (self.v_head_dim or 0)

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values in grouped-query attention, in layers that see everything."""
        return self.num_key_value_heads or self.num_heads

    @property
    def head_size(self) -> int:
        """Size of one query head of grouped-query attention."""
        return self.head_dim or self.hidden_size // self.num_heads

    @property
    def value_size(self) -> int:
        """Size of one value head."""
        return self.v_head_dim or self.head_size

    @property
    def rotary_dim(self) -> int:
        """How many dimensions of a head rotary turns."""
        if self.is_latent:
            return self.qk_rope_head_dim or 0
        return self.rotary_head_dim or self.head_size

    @property
    def counts_from_the_start(self) -> bool:
        """Whether a token's place in its document matters, not only its distance to others, as rotary alone has it."""
        grows = self.rope_scaling is not None and self.rope_scaling.query_beta > 0
        return grows or self.qk_norm == "after_rotary"

    @property
    def mtp_shares_norm(self) -> bool:
        """Whether multi-token modules take states before the last norm, and end in that norm instead of their own."""
        return self.mtp_kind == "ernie"

    @property
    def shared_size(self) -> int:
        """Width of all shared experts together."""
        return self.shared_intermediate_size or self.num_shared_experts * self.moe_intermediate_size

    def layer_type(self, index: int) -> LayerType:
        """How far layer `index` sees; multi-token layers count on from the last, and mostly see everything."""
        if index >= self.num_layers and self.mtp_kind == "mimo_v2":
            return "sliding_attention"
        return self.layer_types[index] if index < len(self.layer_types) else "full_attention"

    def kv_heads_of(self, layer_type: LayerType) -> int:
        """Heads of keys and values in layers of a type."""
        is_sliding = layer_type == "sliding_attention"
        return (self.sliding_key_value_heads if is_sliding else None) or self.kv_heads

    def is_moe_layer(self, index: int) -> bool:
        """Whether layer `index` routes its tokens to experts; multi-token layers count on from the last."""
        is_dense = index < self.num_dense_layers or index in self.dense_layers
        if index >= self.num_layers and self.mtp_kind in ("mimo_v2", "ernie"):
            return False
        return self.num_routed_experts > 0 and not is_dense

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """What the family implies; whoever says otherwise is told."""
        if not isinstance(values, dict):
            return values
        return IMPLIED.get(str(values.get("family")), {}) | values

    @model_validator(mode="after")
    def _check_dimensions(self) -> Self:
        if self.family in BEGINNINGS:
            self._check_beginning()
        if self.is_latent:
            self._check_latent()
        else:
            self._check_grouped()
        self._check_layer_types()
        if self.num_routed_experts:
            self._check_experts()
        if self.rotary_dim % 2:
            raise ValueError(f"rotary size ({self.rotary_dim}) must be even")
        return self

    def _check_beginning(self) -> None:
        needed, foreign = BEGINNINGS[self.family]
        for name in needed:
            if not getattr(self, name):
                raise ValueError(f"family {self.family} needs {name}")
        for name in foreign:
            if getattr(self, name):
                is_latent = name == "q_lora_rank" or name in LATENT_SIZES
                what = "belongs to latent attention;" if is_latent else "is not part of"
                raise ValueError(f"{name} {what} family {self.family}{' has none' if is_latent else ''}")

    def _check_latent(self) -> None:
        for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
            if not getattr(self, name):
                raise ValueError(f"latent attention (kv_lora_rank) needs {name}")
        for name in ("num_key_value_heads", "head_dim"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} belongs to grouped-query attention; {self.family} has none")
        if self.index_topk:
            self._check_indexer()

    def _check_indexer(self) -> None:
        for name in ("index_num_heads", "index_head_dim", "q_lora_rank"):
            if not getattr(self, name):
                raise ValueError(f"sparse attention (index_topk) needs {name}")
        if (self.index_head_dim or 0) < self.rotary_dim:
            raise ValueError(
                f"index_head_dim ({self.index_head_dim}) must be at least qk_rope_head_dim ({self.rotary_dim})"
            )

    def _check_grouped(self) -> None:
        for name in ("q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "index_topk"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} belongs to latent attention; family {self.family} has none")
        for name in ("num_key_value_heads", "sliding_key_value_heads"):
            heads = getattr(self, name) or self.num_heads
            if self.num_heads % heads:
                raise ValueError(f"num_heads ({self.num_heads}) must be divisible by {name} ({heads})")
        # transformers asks it of Llama even where head_dim is given
        if (self.head_dim is None or self.family == "llama") and self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be divisible by num_heads ({self.num_heads})"
            )
        if self.rotary_dim > self.head_size:
            raise ValueError(
                f"rotary_head_dim ({self.rotary_dim}) must be at most head_dim ({self.head_size})"
            )

    def _check_layer_types(self) -> None:
        if self.layer_types and len(self.layer_types) != self.num_layers:
            raise ValueError(
                f"layer_types ({len(self.layer_types)}) must name num_layers ({self.num_layers})"
            )
        last = self.layer_type(self.num_layers) if self.num_mtp_layers else "full_attention"
        if "sliding_attention" in (*self.layer_types, last) and not self.sliding_window:
            raise ValueError("layer_types with sliding_attention need sliding_window")
        if self.dense_layers and not 0 <= min(self.dense_layers) <= max(self.dense_layers) < self.num_layers:
            raise ValueError(f"dense_layers must be below num_layers ({self.num_layers})")

    def _check_experts(self) -> None:
        if not 0 < self.num_experts_per_token <= self.num_routed_experts:
            raise ValueError(
                f"num_experts_per_token ({self.num_experts_per_token}) must be between 1 and "
                f"num_routed_experts ({self.num_routed_experts})"
            )
        if not self.moe_intermediate_size:
            raise ValueError("num_routed_experts needs moe_intermediate_size")
        for name in ("hidden_size", "moe_intermediate_size"):
            if getattr(self, name) % GROUPED_PRODUCT_MULTIPLE:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must be a multiple of {GROUPED_PRODUCT_MULTIPLE} where "
                    "there are experts"
                )
        self._check_expert_groups()

    def _check_expert_groups(self) -> None:
        if self.num_routed_experts % self.num_expert_groups:
            raise ValueError(
                f"num_routed_experts ({self.num_routed_experts}) must be divisible by "
                f"num_expert_groups ({self.num_expert_groups})"
            )
        ranks_by_two = self.num_expert_groups > 1 and self.group_score == "two_best"
        if ranks_by_two and self.num_routed_experts < 2 * self.num_expert_groups:
            raise ValueError(
                f"num_routed_experts ({self.num_routed_experts}) must be at least 2 for each of "
                f"num_expert_groups ({self.num_expert_groups}), which are ranked by their two best"
            )
        if self.num_limited_groups > self.num_expert_groups:
            raise ValueError(
                f"num_limited_groups ({self.num_limited_groups}) must be at most "
                f"num_expert_groups ({self.num_expert_groups})"
            )
        reachable = self.num_routed_experts // self.num_expert_groups * self.num_limited_groups
        if self.num_experts_per_token > reachable:
            raise ValueError(
                f"num_experts_per_token ({self.num_experts_per_token}) must be at most the experts in "
                f"num_limited_groups groups ({reachable})"
            )


def _check_family(config: ModelConfig) -> ModelConfig:
    if config.family not in BEGINNINGS:
        raise ValueError(
            f"family {config.family!r} can't begin from random weights; known ones: {', '.join(BEGINNINGS)} "
            "(a stage's base may be of any family)"
        )
    return config


# a model that a recipe begins from random weights
NewModel = Annotated[ModelConfig, AfterValidator(_check_family)]
