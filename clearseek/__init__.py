"""The DeepSeek-R1 system, whole and in the open.

    model = clearseek.load("runs/r1-mini")          # a Hugging Face directory, a GGUF file
    print(model.generate("What is 17+25?"))
    scores = model.logits(token_ids)                # (B, T) -> (B, T, V)
    clearseek.save(model, "somewhere/new")

Importing this is instant: torch comes with the first use of a name below.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clearseek.engine.loaded import Answer, Model
    from clearseek.engine.published import load, save

_HOMES = {
    "Answer": "clearseek.engine.loaded",
    "Model": "clearseek.engine.loaded",
    "load": "clearseek.engine.published",
    "save": "clearseek.engine.published",
}
__all__ = ["Answer", "Model", "__version__", "load", "save"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
