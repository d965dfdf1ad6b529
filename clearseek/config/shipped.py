"""Finds the recipes that come with clearseek: `clearseek run r1-mini` works from a checkout and a wheel."""

from difflib import get_close_matches
from pathlib import Path

from clearseek.config.errors import InputError

_PACKAGE = Path(__file__).resolve().parent.parent
_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "recipes")


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with clearseek, by name, in alphabetical order."""
    for folder in _FOLDERS:
        found = {path.stem: path for path in sorted(folder.glob("*.toml"))}
        if found:
            return found
    return {}


def find_recipe(recipe: str) -> Path:
    """The file that `recipe` means: a path, or else the bare name of a recipe that comes with clearseek.

    Raises:
        InputError: no such file and no such name; names the nearest one.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if recipe in shipped:
        return shipped[recipe]
    if path.is_dir():
        raise InputError(f"{recipe} is a folder; give the recipe's .toml file")
    nearest = get_close_matches(path.stem, shipped, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"clearseek brings {', '.join(shipped) or 'none'}"
    raise InputError(f"no recipe at {recipe}, and none of that name comes with clearseek; {hint}")


def shipped_model() -> Path:
    """The directory of the small model that comes with clearseek. InputError where this copy has none."""
    path = carried_model("r1-mini")
    if path is None:
        raise InputError("this copy of clearseek carries no model; name one, such as a run's directory")
    return path


def carried_model(name: str) -> Path | None:
    """The directory of the model of that bare name that comes with clearseek, None where there is none."""
    path = _PACKAGE / "models" / name
    return path if name and Path(name).name == name and path.is_dir() else None
