"""The harmless differences between two ways to type an answer, removed before it is read."""

import re
import unicodedata

_WIDTHS = ("<wide>", "<narrow>", "<noBreak>")
_WRAPPERS = (("\\boxed{", "}"), ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"))


def fold(text: str) -> str:
    """Full- and half-width forms as ordinary ones, composed, stripped.

    Unlike NFKC it leaves superscripts, circled digits and fractions alone: 4² is not 42.
    """
    if not text.isascii():
        text = "".join(map(_fold_character, unicodedata.normalize("NFC", text)))
    return text.strip()


def _fold_character(character: str) -> str:
    if unicodedata.decomposition(character).startswith(_WIDTHS):
        return unicodedata.normalize("NFKC", character)
    return "-" if character == "\u2212" else character


def unwrap(text: str) -> str:
    r"""The text without one closing stop and without `\boxed{}`, `$`, `\(`, `\[` or `**` around the whole."""
    text = text.removesuffix(".").removesuffix("。").strip()
    for _ in range(3):
        inner = next((_inside(text, *wrapper) for wrapper in _WRAPPERS if _wraps(text, *wrapper)), None)
        if inner is None:
            return text
        text = inner.strip()
    return text


def _wraps(text: str, opening: str, closing: str) -> bool:
    if not (text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing)):
        return False
    inner = _inside(text, opening, closing)
    if opening.endswith("{"):
        return _balanced(inner)
    return opening not in inner and closing not in inner


def _inside(text: str, opening: str, closing: str) -> str:
    return text[len(opening) : -len(closing)]


def _balanced(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"[{}]", text):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0
