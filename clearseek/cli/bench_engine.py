"""`clearseek bench engine`: how fast the engine is here, and how fast memory would let it be."""

import sys
from typing import Any

import click

from clearseek.cli.options import json_option, print_columns, print_json

EPILOG = """\b
Examples:
  clearseek bench engine
  clearseek bench engine runs/r1-mini --formats bf16,int8 --json

\b
Without MODEL it measures standing shapes with random weights, as many as fit
into --seconds, each format in about 8 s. GB/s is what one stream reads a second, the share is of the
rate at which this machine reads memory of that size, measured beside it.
It names the peers that are installed; --peers, in a checkout, measures those.

Exit codes: 0 done, 1 failed, 2 the model or an option is wrong."""
_WORKLOADS = ("one_stream", "streams_16", "prefill_512")


@click.command("engine", epilog=EPILOG)
@click.argument("model", required=False, type=click.Path())
@click.option("--formats", default="fp32,bf16,int8,int4", show_default=True, metavar="NAME,...")
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=45, show_default=True,
    help="No further format is begun after so many.",
)  # fmt: skip
@click.option(
    "--peers", is_flag=True, help="Beside transformers, vLLM and llama.cpp, on one shape; takes minutes."
)
@json_option
def command(model: str | None, formats: str, seconds: float, peers: bool, as_json: bool) -> None:
    """Measure tokens a second in every format, beside this machine's limits.

    MODEL is a run directory, one of its checkpoints, a directory in Hugging
    Face format, or a GGUF file.
    """
    from clearseek.engine.bench.peers import bench_peers, check_checkout, installed_peers
    from clearseek.engine.bench.speed import bench_engine

    if peers:
        check_checkout()
    names = [name.strip() for name in formats.split(",")]
    result = bench_engine(model, names, seconds, _say) | {"installed_peers": installed_peers()}
    if not as_json:
        _print(result)
    try:
        if peers:
            result["peers"] = bench_peers(names)
    finally:  # peers that fail, or are waited for no longer, take none of ours with them
        if as_json:
            print_json(result)
    if peers and not as_json:
        _print_peers(result["peers"])


def _say(what: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"measuring {what}", err=True)


def _print(result: dict[str, Any]) -> None:
    machine = result["machine"]
    peaks = machine["product_flops_per_second"]
    click.echo(f"{machine['processor']}, {machine['threads']} threads")
    products = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {form}" for form, rate in peaks.items())
    click.echo(
        f"memory is read at {machine['read_bytes_per_second'] / 1e9:.1f} GB/s; products run at {products}\n"
    )
    header = ["tokens/s", "one stream", "GB/s", "of the limit", "16 streams", "reading", "first token"]
    rows, left = [header], dict[str, list[str]]()
    for model, cells in result["models"].items():
        for form, cell in cells.items():
            name = f"{model} {form}"
            if "why" in cell:
                left.setdefault(cell["why"], []).append(name)
            else:
                rows.append([name, *_figures(cell)])
                if cell["plain"]:
                    left.setdefault(f"without kernels: {cell['plain']}", []).append(name)
    print_columns(rows)
    for model, cells in result["models"].items():
        if (price := cells.get("bf16", {}).get("exact_price")) is not None:
            click.echo(f"{model}: exact, a layer learns from a row of 512 in {1 + price:.2f} times the time")
    for why, names in left.items():
        click.echo(f"{why}: {', '.join(names)}")
    peers = [
        f"{name} {f'in {where}' if where else 'absent'}" for name, where in result["installed_peers"].items()
    ]
    click.echo(f"peers: {', '.join(peers)}")


def _figures(cell: dict[str, Any]) -> list[str]:
    return [
        f"{cell['one_stream']:,.1f}", f"{cell['bytes_per_second'] / 1e9:.1f}", f"{cell['share_of_limit']:.0%}",
        f"{cell['streams_16']:,.1f}", f"{cell['prefill']:,.0f}", f"{cell['seconds_to_first_token'] * 1e3:.0f} ms",
    ]  # fmt: skip


def _print_peers(peers: dict[str, Any]) -> None:
    rows, absent = [["", "one stream", "16 streams", "reading 512"]], {}
    for form, workloads in peers["formats"].items():
        for engine in workloads[_WORKLOADS[0]]:
            cells = [workloads[name][engine] for name in _WORKLOADS]
            if all("why" in cell for cell in cells):
                absent[f"{engine} {form}"] = cells[0]["why"]
            else:
                rows.append([f"{engine} {form}", *(_rate(cell) for cell in cells)])
    click.echo(f"\nbeside peers, on {peers['shape']}, tokens/s in turns:")
    print_columns(rows)
    for name, why in absent.items():
        click.echo(f"{name}: {why}")


def _rate(cell: dict[str, Any]) -> str:
    return f"{cell['tokens_per_second']:,.1f}" if "tokens_per_second" in cell else "failed"
