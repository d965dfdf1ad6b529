"""What is done inside the space without a network; `proof.py` runs it as a process and reads the JSON it prints.

python -m clearseek.privacy.inside HOME MODEL RUN|- namespace|hook
"""

import json
import secrets
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clearseek.privacy import activities, space
from clearseek.privacy.activities import Sandbox
from clearseek.privacy.packages import denied_that_are_imported, denied_that_come_along
from clearseek.privacy.search import find

_GRAIN_SECONDS = 2.0  # file systems tell times in steps


def main() -> None:
    """Do everything, look for what it left, tell."""
    home, model, run, isolation = sys.argv[1:5]
    told: dict[str, Any] = {"isolation": isolation}
    if isolation == "namespace":
        space.raise_loopback()
        told |= {"interfaces": space.interfaces(), "reaches_elsewhere": space.reaches_elsewhere()}
    began = time.time() - _GRAIN_SECONDS
    sandbox = Sandbox(Path(home))
    canary, kept = (f"canary{secrets.token_hex(16)}" for _ in range(2))
    told["activities"] = _do(sandbox, model, run, canary, kept)
    found = find([canary, kept], began)
    told["canary_found"] = found[canary]
    told["kept_found"] = len(found[kept])
    told |= _noted(sandbox.seen)
    told["denied_packages"] = denied_that_come_along()
    sys.stdout.write(json.dumps(told) + "\n")


def _do(sandbox: Sandbox, model: str, run: str, canary: str, kept: str) -> dict[str, str]:
    """Each activity's name and "done", or what went wrong."""
    trained: list[str] = []
    wanted: dict[str, Callable[[], object]] = {
        "train": lambda: trained.append(activities.train(sandbox)),
        "serve": lambda: activities.serve(sandbox, model, canary),
        "chat": lambda: activities.chat(sandbox, model, canary),
        "chat, kept": lambda: activities.chat_that_is_kept(sandbox, model, kept),
    }
    if find_spec("clearseek.cli.trace") is not None:
        wanted["trace"] = lambda: activities.trace(sandbox, trained[0] if run == "-" else run, canary)
    done = {}
    for name, act in wanted.items():
        try:
            act()
            done[name] = "done"
        except (RuntimeError, OSError, ValueError, LookupError) as error:
            done[name] = f"failed: {error}"
    return done


def _noted(path: Path) -> dict[str, Any]:
    """What the watch saw: how many processes, attempts to reach another machine, denied modules."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    modules = {name for row in rows for name in row.get("modules", [])}
    return {
        "processes": len({row["pid"] for row in rows if "modules" in row}),
        "attempts": [row for row in rows if "attempt" in row],
        "denied_modules": denied_that_are_imported(modules),
    }


if __name__ == "__main__":
    main()
