"""What a decoder is: the switches that every family of checkpoints is a setting of. No torch here."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

GROUPED_PRODUCT_MULTIPLE = 8  # rows of grouped matrix products are whole 16 bytes, in bf16 too

# A slip of the finger is refused before anything counts that far: ten times what the largest models have.
Layers = Annotated[int, Field(le=2**11)]
Size = Annotated[int, Field(le=2**21)]
Positions = Annotated[int, Field(le=2**30)]


class Table(BaseModel):
    """A table of a recipe: unknown keys and other types are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class YarnScaling(Table):
    """YaRN's stretch of the rotary frequencies (arXiv:2309.00071), with DeepSeek's softmax correction."""

    factor: float = Field(gt=1)
    original_max_position_embeddings: Positions = Field(gt=0)
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _read_alike_everywhere(self) -> Self:
        if self.mscale <= 0 or (self.mscale_all_dim == 0 and self.mscale != 1):
            raise ValueError(
                f"mscale ({self.mscale}) with mscale_all_dim ({self.mscale_all_dim}) is read differently by "
                "different libraries; give both, or 1 and 0"
            )
        return self


class ModelConfig(Table):
    """One decoder: latent or grouped-query attention, dense or mixture-of-experts feed-forward.

    `family` names the published checkpoint format that the model is saved in.
    """

    family: Literal["deepseek_v3", "qwen3", "llama"]
    vocab_size: Size = Field(default=0, ge=0, description="0: taken from the tokenizer")
    hidden_size: Size = Field(gt=0)
    num_layers: Layers = Field(gt=0)
    num_heads: Size = Field(gt=0)
    intermediate_size: Size = Field(gt=0, description="width of a dense feed-forward")
    max_position_embeddings: Positions = Field(default=4096, gt=0)
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    rope_theta: float = Field(default=10_000.0, gt=1)
    rope_scaling: YarnScaling | None = None
    tie_word_embeddings: bool = False
    initializer_range: float = Field(default=0.02, gt=0)

    # grouped-query attention (qwen3, llama)
    num_key_value_heads: Size | None = Field(default=None, gt=0, description="default: num_heads")
    head_dim: Size | None = Field(default=None, gt=0, description="default: hidden_size / num_heads")

    # multi-head latent attention (deepseek_v3)
    q_lora_rank: Size | None = Field(default=None, gt=0)
    kv_lora_rank: Size | None = Field(default=None, gt=0)
    qk_nope_head_dim: Size | None = Field(default=None, gt=0)
    qk_rope_head_dim: Size | None = Field(default=None, gt=0)
    v_head_dim: Size | None = Field(default=None, gt=0)

    # mixture of experts (deepseek_v3)
    num_routed_experts: Size = Field(default=0, ge=0, description="0: every layer is dense")
    num_shared_experts: Size = Field(default=0, ge=0)
    num_experts_per_token: Size = Field(default=0, ge=0)
    moe_intermediate_size: Size = Field(default=0, ge=0)
    num_dense_layers: Layers = Field(default=0, ge=0, description="the first layers, which stay dense")
    num_expert_groups: Size = Field(default=1, ge=1)
    num_limited_groups: Size = Field(default=1, ge=1, description="groups a token may choose experts from")
    routed_scaling_factor: float = Field(default=1.0, gt=0)

    num_mtp_layers: int = Field(default=0, ge=0, le=4, description="multi-token prediction depth")

    @property
    def is_latent(self) -> bool:
        """Whether attention is multi-head latent attention."""
        return self.family == "deepseek_v3"

    @property
    def has_qk_norm(self) -> bool:
        """Whether queries and keys are normalised per head before rotary (Qwen3)."""
        return self.family == "qwen3"

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values in grouped-query attention."""
        return self.num_key_value_heads or self.num_heads

    @property
    def head_size(self) -> int:
        """Size of one query head of grouped-query attention."""
        return self.head_dim or self.hidden_size // self.num_heads

    @property
    def rotary_dim(self) -> int:
        """How many dimensions of a head rotary turns."""
        return self.qk_rope_head_dim or 0 if self.is_latent else self.head_size

    def is_moe_layer(self, index: int) -> bool:
        """Whether layer `index` routes its tokens to experts; multi-token layers count on from the last."""
        return self.num_routed_experts > 0 and index >= self.num_dense_layers

    @model_validator(mode="after")
    def _check_dimensions(self) -> Self:
        if self.is_latent:
            self._check_latent()
        else:
            self._check_grouped()
        if self.num_routed_experts:
            self._check_experts()
        if self.rotary_dim % 2:
            raise ValueError(f"rotary size ({self.rotary_dim}) must be even")
        return self

    def _check_latent(self) -> None:
        for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
            if not getattr(self, name):
                raise ValueError(f"family deepseek_v3 needs {name}")
        for name in ("num_key_value_heads", "head_dim"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} belongs to grouped-query attention; deepseek_v3 has none")

    def _check_grouped(self) -> None:
        latent = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        for name in latent:
            if getattr(self, name) is not None:
                raise ValueError(f"{name} belongs to latent attention; family {self.family} has none")
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) must be divisible by num_key_value_heads ({self.kv_heads})"
            )
        # transformers asks it of Llama even where head_dim is given
        if (self.head_dim is None or self.family == "llama") and self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be divisible by num_heads ({self.num_heads})"
            )
        for name in ("num_routed_experts", "num_mtp_layers"):
            if getattr(self, name):
                raise ValueError(f"{name} is not part of family {self.family}")

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
        if self.num_routed_experts < 2 * self.num_expert_groups:
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
