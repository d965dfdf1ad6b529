"""The engine's targets, one row each, out of the records; one that can't be told yet says why."""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.engine_bench.exactness import REQUESTS
from benchmarks.engine_bench.measure import OURS
from benchmarks.engine_bench.workers import ENGINES
from clearseek.engine.bench.shapes import FORMATS, PROMPT_WORKLOADS, SHAPES

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]  # shape → format → {"limits", "workloads"}
DENSE = ("dense-0.1b", "dense-0.6b")
LATENT = "latent-moe-0.5b"
TINY = tuple(name for name in SHAPES if name.startswith("tiny"))
PEERS = tuple(name for name in ENGINES if name != OURS)


def target_rows(
    results: Results, installed: Mapping[str, int], exact: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """`{name, value, met}` of every target; `value` is the worst of what the target speaks of."""
    figures = _Figures(results)
    latent = [(LATENT, form, work) for form in FORMATS for work in PROMPT_WORKLOADS]
    for_vllm = [cell for cell in latent if cell[1] in ENGINES["vllm"].formats]
    return [
        _at_least(
            "latent+MoE ÷ llama.cpp, least of all workloads", 1.0, figures.ratios(latent, ["llama.cpp"])
        ),
        _at_least("latent+MoE ÷ vllm, least of all workloads", 3.0, figures.ratios(for_vllm, ["vllm"])),
        _at_least(
            "latent+MoE with its MTP layer ÷ without, 80 % accepted, least of all formats",
            1.4,
            [figures.of(LATENT, form, "mtp", OURS, "ratio") for form in FORMATS],
        ),
        *_dense_rows(figures),
        _at_least(
            "share of bandwidth ÷ bytes per token, one stream, 0.6B, least of all formats",
            0.85,
            [figures.share_of_limit("dense-0.6b", form) for form in FORMATS],
        ),
        _at_least(
            "tiny models ÷ transformers' generate, batch 128",
            20.0,
            [figures.tiny_ratio(name) for name in TINY],
        ),
        _at_least(
            "tiny models, share of the products' own peak", 0.5, [figures.tiny_share(name) for name in TINY]
        ),
        _at_most(
            "cold start, seconds", 3.0, [figures.of("dense-0.6b", "bf16", "cold_start", OURS, "seconds")]
        ),
        {
            "name": "installed bytes of all dependencies, listed",
            "value": sum(installed.values()),
            "met": bool(installed),
        },
        _exact_row(exact),
        _at_most(
            "max |engine − trainer| log-probability, fp32",
            1e-5,
            [
                figures.of(name, "fp32", work, OURS, "log_prob_difference")
                for name in (*DENSE, LATENT)
                for work in PROMPT_WORKLOADS
            ],
        ),
    ]


def _dense_rows(figures: "_Figures") -> list[dict[str, Any]]:
    def cells(workload: str, formats: Iterable[str]) -> list[tuple[str, str, str]]:
        return [(shape, form, workload) for shape in DENSE for form in formats]

    def row(
        name: str, bound: float, workload: str, formats: Iterable[str], peers: list[str]
    ) -> dict[str, Any]:
        return _at_least(name, bound, figures.ratios(cells(workload, formats), peers))

    return [
        row(
            "dense ÷ llama.cpp, one stream, bf16 and int8",
            1.1,
            "one_stream",
            ("bf16", "int8"),
            ["llama.cpp"],
        ),
        row("dense ÷ llama.cpp, one stream, int4", 1.5, "one_stream", ("int4",), ["llama.cpp"]),
        row("dense ÷ the best peer, 16 streams", 1.5, "streams_16", FORMATS, list(PEERS)),
        row(
            "dense ÷ the best peer, all without a prefix cache, shared prefix",
            2.0,
            "shared_prefix",
            FORMATS,
            list(PEERS),
        ),
    ]


class _Figures:
    """Looks figures up; None is one that was not measured."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def of(
        self, shape: str, form: str, workload: str, engine: str, key: str = "tokens_per_second"
    ) -> float | None:
        cell = self.results.get(shape, {}).get(form, {}).get("workloads", {})
        found: float | None = cell.get(workload, {}).get(engine, {}).get(key)
        return found

    def ratios(self, cells: Iterable[tuple[str, str, str]], peers: list[str]) -> list[float | None]:
        """Ours ÷ the best of the peers, cell by cell; cells that no peer can do are no part of a target."""
        return [self._ratio(*cell, peers) for cell in cells if not self._all_failed(*cell, peers)]

    def _all_failed(self, shape: str, form: str, workload: str, peers: list[str]) -> bool:
        able = [peer for peer in peers if form in ENGINES[peer].formats]
        return all(self._failed(shape, form, workload, peer) for peer in able)

    def _ratio(self, shape: str, form: str, workload: str, peers: list[str]) -> float | None:
        """Ours ÷ the best of the peers that read the format; None where one of them is absent."""
        able = [peer for peer in peers if form in ENGINES[peer].formats]
        theirs = [self.of(shape, form, workload, peer) for peer in able]
        ours = self.of(shape, form, workload, OURS)
        is_told = [
            speed is not None or self._failed(shape, form, workload, peer)
            for speed, peer in zip(theirs, able, strict=True)
        ]
        found = [speed for speed in theirs if speed is not None]
        return ours / max(found) if ours is not None and found and all(is_told) else None

    def _failed(self, shape: str, form: str, workload: str, peer: str) -> bool:
        """Whether the peer was there and could not do it: then it is no peer here."""
        cell = self.results.get(shape, {}).get(form, {}).get("workloads", {})
        why = cell.get(workload, {}).get(peer, {}).get("why")
        return why is not None and not why.startswith("absent")

    def share_of_limit(self, shape: str, form: str) -> float | None:
        speed, limits = self.of(shape, form, "one_stream", OURS), self._limits(shape, form)
        return None if speed is None or not limits else speed / limits["tokens_per_second"]

    def tiny_ratio(self, shape: str) -> float | None:
        """Both in the format that each is fastest in."""
        ours, theirs = ([self.of(shape, form, "batch_128", name) for form in SHAPES[shape].formats]
                        for name in (OURS, "transformers"))  # fmt: skip
        if None in ours or None in theirs:
            return None
        return max(filter(None, ours)) / max(filter(None, theirs))

    def tiny_share(self, shape: str) -> float | None:
        """In the format that does best by its own peak."""
        shares = []
        for form in SHAPES[shape].formats:
            speed, limits = self.of(shape, form, "batch_128", OURS), self._limits(shape, form)
            if speed is not None and limits:
                shares.append(speed * limits["flops_per_token"] / limits["products_flops_per_second"])
        return max(shares, default=None)

    def _limits(self, shape: str, form: str) -> Mapping[str, float]:
        found: Mapping[str, float] = self.results.get(shape, {}).get(form, {}).get("limits", {})
        return found


def _at_least(name: str, bound: float, values: list[float | None]) -> dict[str, Any]:
    found = [value for value in values if value is not None]
    value = min(found, default=None)
    return _row(name, value, bound, len(values) - len(found), value is not None and value >= bound)


def _at_most(name: str, bound: float, values: list[float | None]) -> dict[str, Any]:
    found = [value for value in values if value is not None]
    value = max(found, default=None)
    return _row(name, value, bound, len(values) - len(found), value is not None and value <= bound)


def _row(name: str, value: float | None, bound: float, missing: int, holds: bool) -> dict[str, Any]:
    """A target is met only when all that it speaks of was measured."""
    row = {"name": name, "value": value, "met": holds and not missing, "bound": bound}
    return row | ({"not_measured": missing} if missing else {})


def _exact_row(exact: Mapping[str, Any] | None) -> dict[str, Any]:
    """Numbers that differ in any bit; of fewer requests than the target speaks of none is no proof."""
    compared = 0 if exact is None else exact["requests"]
    row = {
        "name": f"exact mode: numbers with differing bits over {REQUESTS:,} requests",
        "value": None if exact is None else exact["differing"],
        "met": exact is not None and exact["differing"] == 0 and compared >= REQUESTS,
        "bound": 0,
    }
    return row | ({"not_measured": REQUESTS - compared} if compared < REQUESTS else {})
