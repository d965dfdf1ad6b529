"""A model from the Hub into a directory that everything else opens."""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearseek.config.errors import InputError, RunError
from clearseek.model.hub.choose import RemoteFile, chosen_files, files_of
from clearseek.model.hub.client import Hub
from clearseek.model.hub.download import PAUSES_SECONDS, download, is_whole

_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)
_MIB = 2**20
Each = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be fetched from where: `revision` is the commit that the asked one stands for."""

    hub: Hub
    name: str
    revision: str
    directory: Path
    files: list[RemoteFile]

    @property
    def num_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


def plan_pull(
    name: str,
    directory: Path | None = None,
    revision: str = "main",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    hub: Hub | None = None,
) -> Plan:
    """Ask the Hub what `name` (ORG/NAME) holds, choose from it, and see that the disk has room for what is missing.

    Raises InputError for a name, revision or pattern that is wrong or closed to us; RunError without a network or room.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is not the name of a repository; give ORG/NAME, such as Qwen/Qwen3-0.6B")
    hub = hub or Hub.of_environment()
    repository = hub.repository(name, revision)
    directory = directory or Path(name.rpartition("/")[2])
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: is a file; name a directory with --to")
    files = chosen_files(files_of(repository), include, exclude)
    plan = Plan(hub, name, str(repository.get("sha") or revision), directory, files)
    _check_room(plan)
    return plan


def pull(plan: Plan, progress: Callable[[str], Each], pauses: tuple[float, ...] = PAUSES_SECONDS) -> None:
    """Fetch every file of a plan that is not there yet; `progress(path)` gives a file's progress function.

    Raises RunError and OSError as `download` does.
    """
    for file in sorted(plan.files, key=lambda file: file.size):
        path = plan.directory / file.path
        if is_whole(path, file):
            continue
        url = plan.hub.file_url(plan.name, plan.revision, file.path)
        download(plan.hub, url, file, path, progress(file.path), pauses)


def _check_room(plan: Plan) -> None:
    """Raise RunError where the disk has too little room, with both numbers."""
    missing = sum(file.size - _there(plan.directory / file.path) for file in plan.files)
    parent = next(
        folder for folder in (plan.directory, *plan.directory.absolute().parents) if folder.exists()
    )
    free = shutil.disk_usage(parent).free
    if missing > free:
        raise RunError(
            f"{plan.directory}: {missing / _MIB:,.0f} MiB are to be fetched, the disk has {free / _MIB:,.0f} MiB "
            "free; make room, name another place with --to, or fewer files with --include"
        )


def _there(path: Path) -> int:
    """Bytes of a file, or of its part, that are here already."""
    for found in (path, path.with_name(f"{path.name}.part")):
        if found.is_file():
            return found.stat().st_size
    return 0
