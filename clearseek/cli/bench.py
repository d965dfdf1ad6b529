"""`clearseek bench`: measure this machine; a command each."""

from clearseek.cli.lazy import LazyGroup

command = LazyGroup(
    "bench",
    help="Measure the engine's speed on this machine.",
    epilog="""\b
Example:
  clearseek bench engine

Exit codes: 0 done, 1 failed, 2 the model or an option is wrong.""",
    lazy={
        "engine": (
            "clearseek.cli.bench_engine",
            "Tokens a second in every format, beside this machine's limits.",
        ),
    },
)
