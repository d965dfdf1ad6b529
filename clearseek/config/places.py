"""Where a user's own files go, as each system has it."""

import os
import sys
from pathlib import Path


def data_directory() -> Path:
    """For what is kept between sessions; it need not exist yet."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "clearseek"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "clearseek"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "clearseek"


def cache_directory() -> Path:
    """For what can be made again at any time; it need not exist yet."""
    if sys.platform == "win32":
        return data_directory() / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "clearseek"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clearseek"
