"""What the data of a run is told with, in three languages: the phrases of data_words.toml."""

import tomllib
from functools import cache
from importlib import resources

HTML_LANGUAGES = {"en": "en", "ko": "ko", "zh": "zh-Hans"}


@cache
def phrases() -> dict[str, dict[str, str]]:
    """Every phrase by language and key."""
    return tomllib.loads(resources.files(__package__).joinpath("data_words.toml").read_text(encoding="utf-8"))


def say(key: str, language: str = "en", **values: object) -> str:
    """A phrase in a language, its places filled; KeyError for a key that there is none of."""
    return phrases()[language][key].format(**values)


def say_word(group: str, word: str, language: str = "en") -> str:
    """A phrase of a group by a word of a record; the word itself where a newer version wrote it."""
    return phrases()[language].get(f"{group}.{word}", word)
