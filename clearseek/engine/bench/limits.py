"""What the machine can do: bytes a second out of memory, and products of the shapes that a model multiplies."""

import mmap
import time
from collections.abc import Callable, Iterator

import torch

from clearseek.config.model import ModelConfig
from clearseek.engine.bench.shapes import OUR_FORMATS
from clearseek.engine.formats import Format
from clearseek.engine.layout import widest_group
from clearseek.engine.mixed_formats import read_formats
from clearseek.model.decoder import Decoder, Layer

DRAM_BYTES = 4 << 30  # far larger than a processor's caches
TRIAL_SECONDS = 0.5
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def best_rate(work: Callable[[], object], amount: float, seconds: float) -> float:
    """`amount` by the fastest of the calls that fit into `seconds`, per second; the first one warms up."""
    work()
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end or not best:
        started = time.perf_counter()
        work()
        best = max(best, amount / (time.perf_counter() - started))
    return best


def read_bandwidth(num_bytes: int) -> float:
    """The best rate in bytes a second of reading a buffer of this size again and again with torch's threads.

    By sums of whole numbers and of fp32, and by a matrix times a vector, whichever is fastest, in large pages.
    """
    columns = 1024
    count = max(1, num_bytes // 8 // columns) * columns
    memory = mmap.mmap(-1, count * 8)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.int64)
    whole.fill_(1)
    floats = whole.view(torch.float32)
    matrix, vector = floats.view(-1, columns), torch.ones(columns)
    ways: tuple[Callable[[], object], ...] = (
        whole.sum,
        floats.sum,
        lambda: torch.mv(matrix, vector),
    )
    return max(best_rate(way, count * 8.0, TRIAL_SECONDS) for way in ways)


def square_peak(format_name: str) -> float:
    """The best rate of a square product among three sizes, in FLOP/s."""
    return max(product_rate(size, size, size, format_name) for size in (512, 1024, 2048))


def product_rate(rows: int, inner: int, columns: int, format_name: str) -> float:
    """FLOP/s of [rows, inner] × [columns, inner]ᵀ."""
    x = torch.randn(rows, inner).to(_DTYPES[format_name])
    weight = torch.randn(columns, inner).to(_DTYPES[format_name])
    return best_rate(lambda: torch.nn.functional.linear(x, weight), 2.0 * rows * inner * columns, 0.1)


def decode_peak(config: ModelConfig, rows: int, format_name: str) -> float:
    """FLOP/s of a decoding step's own products, each alone at its best rate, for `rows` sequences."""
    shapes = list(products(config))
    work = [2.0 * rows * inner * columns * share for inner, columns, share in shapes]
    rates = {shape: product_rate(rows, *shape, format_name) for shape in {(i, c) for i, c, _ in shapes}}
    seconds = sum(flops / rates[i, c] for flops, (i, c, _) in zip(work, shapes, strict=True))
    return sum(work) / seconds


def step_flops(config: ModelConfig) -> float:
    """FLOP of one token's products with weights."""
    return sum(2.0 * inner * columns * share for inner, columns, share in products(config))


def products(config: ModelConfig) -> Iterator[tuple[int, int, float]]:
    """(inner, columns, share) of every weight that a token is multiplied with; of experts the chosen share."""
    for name, shape in _matrices(config):
        columns, inner = shape[-2:]
        if len(shape) == 3:
            yield inner, columns, float(config.num_experts_per_token)
        elif name != "embedding.weight" or config.tie_word_embeddings:
            yield inner, columns, 1.0


def _matrices(config: ModelConfig) -> Iterator[tuple[str, torch.Size]]:
    with torch.device("meta"):
        model = Decoder(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and not name.startswith("mtp"):
            yield name, parameter.shape


def bytes_per_token(config: ModelConfig, format_name: str, context: float) -> float:
    """What one stream has to read for a token: the weights that work on it, and its cache of `context` tokens."""
    total, form = 0.0, read_formats(OUR_FORMATS[format_name][1])
    per_weight = Format(form.name, widest_group(config, form)).bytes_per_weight
    for name, shape in _matrices(config):
        is_head = name == ("embedding.weight" if config.tie_word_embeddings else "head.weight")
        if name == "embedding.weight" and not is_head:
            continue
        share = config.num_experts_per_token / shape[0] if len(shape) == 3 else 1.0
        total += shape.numel() * share * (4.0 if "router" in name else per_weight)
    return total + context * cache_bytes(config, format_name)


def cache_bytes(config: ModelConfig, format_name: str) -> float:
    """Of one token in all layers; quantised models keep a 16-bit cache."""
    with torch.device("meta"):
        model = Decoder(config)
    layers = [layer for layer in model.layers if isinstance(layer, Layer)]
    return sum(sum(layer.attention.cache_sizes) for layer in layers) * (4.0 if format_name == "fp32" else 2.0)
