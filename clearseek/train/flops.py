"""Arithmetic of a model: parameters, and floating-point operations per token of training and generation.

Counted as the field counts: two operations per weight of every matrix that a token passes, attention scores
and values on top (half of them, for causal masks), three times that for training. Experts that a token did
not choose are not counted, even where it was faster to compute them.
"""

from clearseek.config.model import ModelConfig


def attention_parameters(config: ModelConfig, layer: int = 0) -> int:
    """Weights of one attention block's matrices, norms and biases aside."""
    hidden, heads = config.hidden_size, config.num_heads
    if not config.is_latent:
        pairs = heads + config.kv_heads_of(config.layer_type(layer))
        return hidden * (config.head_size + config.value_size) * pairs
    nope, rope, value = config.qk_nope_head_dim or 0, config.qk_rope_head_dim or 0, config.v_head_dim or 0
    rank, query = config.kv_lora_rank or 0, heads * (nope + rope)
    queries = hidden * query if config.q_lora_rank is None else config.q_lora_rank * (hidden + query)
    queries += _indexer_parameters(config)
    return queries + hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden


def _indexer_parameters(config: ModelConfig) -> int:
    heads, size = config.index_num_heads or 0, config.index_head_dim or 0
    return (config.q_lora_rank or 0) * heads * size + config.hidden_size * (size + heads)


def feed_forward_parameters(config: ModelConfig, layer: int, active: bool) -> int:
    """Weights of one feed-forward block; `active`: only those that one token passes."""
    if not config.is_moe_layer(layer):
        return 3 * config.hidden_size * config.intermediate_size
    experts = config.num_experts_per_token if active else config.num_routed_experts
    width = experts * config.moe_intermediate_size + config.shared_size
    router = config.num_routed_experts + config.has_shared_gate
    return config.hidden_size * (3 * width + router)


def _layers(config: ModelConfig, first: int, count: int, active: bool) -> int:
    return sum(
        attention_parameters(config, layer) + feed_forward_parameters(config, layer, active)
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
        sizes = config.head_size + config.value_size
    seen = context / 2 if causal else context
    window = min(config.sliding_window or seen, config.index_topk or seen, seen)
    sliding = config.layer_types.count("sliding_attention") if config.index_topk is None else layers
    scores = sliding * window + (layers - sliding) * seen
    scoring = 2.0 * layers * seen * (config.index_num_heads or 0) * (config.index_head_dim or 0)
    return tokens * (2.0 * matrices + 2.0 * config.num_heads * sizes * scores + scoring)


def training_flops(config: ModelConfig, tokens: float, context: float, mtp: bool = False) -> float:
    """Operations of forward and backward over `tokens` tokens in rows of `context`."""
    return 3.0 * forward_flops(config, tokens, context, mtp)
