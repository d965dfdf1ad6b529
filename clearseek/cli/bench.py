"""`clearseek bench`: measure this machine, or a model on it; a command each."""

from clearseek.cli.lazy import LazyGroup

command = LazyGroup(
    "bench",
    help="Measure the engine's speed here, or what weight formats cost a model.",
    epilog="""\b
Examples:
  clearseek bench engine
  clearseek bench formats runs/r1-mini

Exit codes: 0 done, 1 failed, 2 the model or an option is wrong.""",
    lazy={
        "engine": ("clearseek.cli.bench_engine", "Tokens a second by format, beside this machine's limits."),
        "formats": ("clearseek.cli.bench_formats", "What weight formats cost a model, and what they save."),
    },
)
