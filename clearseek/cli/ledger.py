"""`clearseek ledger`: what a run recorded, checked and computed again by whoever doubts it; a command each."""

from clearseek.cli.lazy import LazyGroup

command = LazyGroup(
    "ledger",
    help="Check what a run recorded, and compute it again.",
    epilog="""\b
Examples:
  clearseek ledger verify runs/r1-mini
  clearseek ledger replay runs/r1-mini --sample 5
  clearseek ledger dispute runs/r1-mini theirs/r1-mini

Exit codes: 0 done, 1 something is wrong and named, 2 the input is wrong.""",
    lazy={
        "verify": ("clearseek.cli.ledger_verify", "Check lines, seal and files of a run."),
        "replay": (
            "clearseek.cli.ledger_replay",
            "Compute steps or evaluations again and compare them bit by bit.",
        ),
        "dispute": ("clearseek.cli.ledger_dispute", "Find the first step and tensor where two runs part."),
    },
)
