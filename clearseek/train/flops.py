"""Arithmetic of a model: parameters, and floating-point operations per token of training and generation.

Counted as the field counts: two operations per weight of every matrix that a token passes, attention scores
and values on top (half of them, for causal masks), three times that for training. Experts that a token did
not choose are not counted, even where it was faster to compute them.
"""

from clearseek.config.model import ModelConfig


def attention_parameters(config: ModelConfig) -> int:
    """Weights of one attention block, norms aside."""
    hidden, heads = config.hidden_size, config.num_heads
    if not config.is_latent:
        return hidden * config.head_size * (2 * heads + 2 * config.kv_heads)
    nope, rope, value = config.qk_nope_head_dim or 0, config.qk_rope_head_dim or 0, config.v_head_dim or 0
    rank, query = config.kv_lora_rank or 0, heads * (nope + rope)
    queries = hidden * query if config.q_lora_rank is None else config.q_lora_rank * (hidden + query)
    return queries + hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden


def feed_forward_parameters(config: ModelConfig, layer: int, active: bool) -> int:
    """Weights of one feed-forward block; `active`: only those that one token passes."""
    if not config.is_moe_layer(layer):
        return 3 * config.hidden_size * config.intermediate_size
    experts = config.num_experts_per_token if active else config.num_routed_experts
    matrices = 3 * config.hidden_size * config.moe_intermediate_size
    return (experts + config.num_shared_experts) * matrices + config.hidden_size * config.num_routed_experts


def _layers(config: ModelConfig, first: int, count: int, active: bool) -> int:
    return sum(
        attention_parameters(config) + feed_forward_parameters(config, layer, active)
        for layer in range(first, first + count)
    )


def num_parameters(config: ModelConfig, active: bool = False, with_mtp: bool = False) -> int:
    """Weights of the matrices, embedding and head (once when tied); norms are left out, below 0.1 %."""
    embedding = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    total = embedding + _layers(config, 0, config.num_layers, active)
    if with_mtp:
        total += _layers(config, config.num_layers, config.num_mtp_layers, active)
        total += config.num_mtp_layers * 2 * config.hidden_size**2
    return total


def forward_flops(
    config: ModelConfig, tokens: float, context: float, mtp: bool = False, causal: bool = True
) -> float:
    """Operations of a forward pass over `tokens` tokens in rows of `context` (the mean if not causal)."""
    head = config.vocab_size * config.hidden_size
    matrices = _layers(config, 0, config.num_layers, True) + head
    layers = config.num_layers
    if mtp:
        layers += config.num_mtp_layers
        matrices += _layers(config, config.num_layers, config.num_mtp_layers, True)
        matrices += config.num_mtp_layers * (2 * config.hidden_size**2 + head)
    if config.is_latent:
        sizes = (config.qk_nope_head_dim or 0) + (config.qk_rope_head_dim or 0) + (config.v_head_dim or 0)
    else:
        sizes = 2 * config.head_size
    seen = context / 2 if causal else context
    return tokens * (2.0 * matrices + 2.0 * layers * config.num_heads * sizes * seen)


def training_flops(config: ModelConfig, tokens: float, context: float, mtp: bool = False) -> float:
    """Operations of forward and backward over `tokens` tokens in rows of `context`."""
    return 3.0 * forward_flops(config, tokens, context, mtp)
