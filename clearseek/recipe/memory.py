"""How much memory a stage takes at most, on one device, and the check that a run fits before it starts.

An estimate from shapes: what is counted is named; fragmentation is not.
"""

from dataclasses import asdict, dataclass

import torch

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.config.recipe import EvalStage, Recipe, RejectStage, RlStage, TrainStage
from clearseek.ledger.machine import memory_bytes
from clearseek.model.experts import MAX_DENSE_OVERHEAD
from clearseek.recipe.workload import PROMPT_TOKENS, Work, work_of
from clearseek.train.flops import num_parameters

PROCESS_BYTES = 1e9  # Python, torch, the compiler, the allocator's reserve and the verifiers' process
ENGINE_SLOTS = 256  # completions that the engine keeps growing at a time
_FP32 = 4
_BYTES_PER_DATA_TOKEN = 48  # the text, and token, segment and weight twice: packing makes a copy
GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes that a stage takes on each device: by part, and all that are there at the same time.

    `total` is as clearseek holds them. `at_least` is what is left if layers were recomputed in the backward
    pass, and model, cache and rows parted over all devices.
    """

    weights: float = 0
    gradients: float = 0
    optimizer: float = 0
    activations: float = 0
    engine_weights: float = 0
    engine_cache: float = 0
    reference: float = 0
    data: float = 0
    total: float = 0
    at_least: float = 0

    def to_dict(self) -> dict[str, float]:
        """Every part by name, in bytes."""
        return asdict(self)


def memory_of(recipe: Recipe, work: Work, compute_bytes: int = 2, devices: int = 1) -> Memory:
    """The memory of one stage; `compute_bytes` of an activation, `devices` that share a training state."""
    stage = recipe.stages[work.name]
    if work.config is None:
        return Memory(total=PROCESS_BYTES)
    parameters = float(num_parameters(work.config, with_mtp=True))
    adapter, adapted = work.adapter_parameters, work.adapted_parameters
    # an adapted weight is merged for every pass, and the backward pass needs it so
    weights = _FP32 * (parameters + adapter) + compute_bytes * adapted
    engine_weights, cache = compute_bytes * parameters, _engine_cache(recipe, work, compute_bytes)
    if getattr(stage, "engine", None) is not None:
        engine_weights, cache = 0.0, 0.0  # a server has its own
    if not isinstance(stage, TrainStage):
        spread = (engine_weights + cache) / devices
        total = weights + engine_weights + cache + PROCESS_BYTES
        return Memory(
            weights, engine_weights=engine_weights, engine_cache=cache, total=total, at_least=spread
        )
    learning = float(adapter) or parameters
    gradients, optimizer = _FP32 * learning, _optimizer_bytes(work.config, stage, learning)
    reference = _FP32 * learning if isinstance(stage, RlStage) and stage.kl_weight else 0.0
    activations = activation_bytes(work.config, stage, compute_bytes)
    data = _BYTES_PER_DATA_TOKEN * work.resident_tokens if devices == 1 else 0.0
    samples_while_training = isinstance(stage, RlStage) or bool(stage.evaluate_every)
    sampling = engine_weights + cache if stage.evaluate or isinstance(stage, RlStage) else 0.0
    state = (weights + gradients + optimizer + reference) / (1 if adapter else devices)
    merged = _FP32 * adapted if samples_while_training else 0.0  # the weights that the engine takes over
    busy = activations + engine_weights if samples_while_training else activations
    sampling += merged
    total = state + max(busy, sampling) + data + PROCESS_BYTES
    recomputed = _recomputed_activations(work.config, stage, compute_bytes)
    return Memory(
        weights,
        gradients,
        optimizer,
        activations,
        engine_weights if sampling else 0.0,
        cache if sampling else 0.0,
        reference,
        data,
        total,
        state + (recomputed + engine_weights * samples_while_training) / devices,
    )


def check_memory(recipe: Recipe, device: torch.device, dtype: torch.dtype) -> None:
    """Raise InputError, with both numbers, where a stage needs more memory than the machine has."""
    available = machine_memory(device)
    for name in recipe.stages:
        needed = memory_of(recipe, work_of(recipe, name), dtype.itemsize)
        if available is not None and needed.total > available:
            raise InputError(too_little(name, needed.total, available, "this machine"))


def too_little(stage: str, needed: float, available: float, machine: str) -> str:
    """The message of a stage that does not fit."""
    return (
        f"stages.{stage} needs {needed / GIB:,.1f} GiB of memory, {machine} has {available / GIB:,.1f} GiB; "
        "lower micro_batch_rows, sequence_length or the model's size, or use a larger machine"
    )


def machine_memory(device: torch.device) -> int | None:
    """Bytes that this machine's device has in all; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return memory_bytes()


def _optimizer_bytes(config: ModelConfig, stage: TrainStage, parameters: float) -> float:
    """Two fp32 moments for AdamW; one momentum for the matrices that Muon takes."""
    if stage.optimizer.name == "adamw":
        return 2 * _FP32 * parameters
    tables = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    return 2 * _FP32 * tables + _FP32 * (parameters - tables)


def _engine_cache(recipe: Recipe, work: Work, compute_bytes: int) -> float:
    """The cache of all completions that grow at a time: prompts and budgets in full."""
    stage, config = recipe.stages[work.name], work.config
    assert config is not None
    if isinstance(stage, RlStage):
        budget, samples = stage.max_completion_tokens, stage.problems_per_step * stage.group_size
        length = max(stage.sequence_length, budget + PROMPT_TOKENS)
    elif isinstance(stage, RejectStage):
        budget, samples = stage.max_completion_tokens, stage.count * stage.samples
        length = budget + PROMPT_TOKENS
    else:
        evaluation = (stage.evaluation if isinstance(stage, EvalStage) else None) or recipe.evaluation
        budget, samples = evaluation.max_completion_tokens, evaluation.count * evaluation.samples
        length = budget + PROMPT_TOKENS
    whole = float(min(samples, ENGINE_SLOTS) * length * cache_width(config) * compute_bytes)
    return whole if recipe.cache_gib is None else min(whole, recipe.cache_gib * GIB)


def cache_width(config: ModelConfig) -> int:
    """Elements that the cache keeps of one position, over all layers; windows are kept whole."""
    if config.is_latent:
        latent = (config.kv_lora_rank or 0) + (config.qk_rope_head_dim or 0)
        return config.num_layers * (latent + (config.index_head_dim or 0))
    heads = sum(config.kv_heads_of(config.layer_type(layer)) for layer in range(config.num_layers))
    return heads * (config.head_size + config.value_size)


def activation_bytes(config: ModelConfig, stage: TrainStage, compute_bytes: int) -> float:
    """What one forward pass of a micro-batch keeps for its backward pass."""
    tokens, length = stage.micro_batch_rows * stage.sequence_length, stage.sequence_length
    depth = config.num_mtp_layers if stage.mtp_loss_weight else 0
    scores = config.num_heads * length * (2 * _FP32 + compute_bytes)  # explicit softmax, in fp32
    layers = sum(
        compute_bytes * (_attention_width(config) + _feed_forward_width(config, layer)) + scores
        for layer in range(config.num_layers + depth)
    )
    norms = 2 * (config.num_layers + depth) * _FP32 * config.hidden_size
    return float(tokens * (layers + norms + (1 + depth) * 3 * _FP32 * config.vocab_size))


def _attention_width(config: ModelConfig) -> int:
    """Elements per token that an attention block keeps."""
    if config.is_latent:
        nope, rope, value = config.qk_nope_head_dim or 0, config.qk_rope_head_dim or 0, config.v_head_dim or 0
        heads = config.num_heads * (4 * (nope + rope) + 2 * value)
        return 3 * config.hidden_size + 2 * (config.q_lora_rank or 0) + 3 * (config.kv_lora_rank or 0) + heads
    return 3 * config.hidden_size + 3 * config.head_size * (config.num_heads + 2 * config.kv_heads)


def _feed_forward_width(config: ModelConfig, layer: int) -> int:
    """Elements per token that a feed-forward block keeps; of all experts where all are computed."""
    if not config.is_moe_layer(layer):
        return 3 * config.hidden_size + 4 * config.intermediate_size
    chosen, all_experts = config.num_experts_per_token, config.num_routed_experts
    computed = all_experts if all_experts <= MAX_DENSE_OVERHEAD * chosen else chosen
    width = computed * config.moe_intermediate_size + config.shared_size
    return (3 + computed) * config.hidden_size + 4 * width


def _recomputed_activations(config: ModelConfig, stage: TrainStage, compute_bytes: int) -> float:
    """A micro-batch's activations if only the inputs of layers were kept, and no table of scores was made."""
    tokens = stage.micro_batch_rows * stage.sequence_length
    inputs = config.num_layers * config.hidden_size * compute_bytes
    working = compute_bytes * (_attention_width(config) + _feed_forward_width(config, config.num_layers - 1))
    return float(tokens * (inputs + working + _FP32 * config.vocab_size))
