"""Full-text search that finds two-syllable Korean and Chinese words: runs of such letters are indexed as bigrams.

SQLite's own tokenizers take a run of Hangul or Han for one word, or need three letters. A query's run is looked for
as a phrase of bigrams, so nothing is found that doesn't hold it.
"""

import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterator, Mapping

_EAST_ASIAN = (
    r"\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN = re.compile(rf"(?P<joined>[{_EAST_ASIAN}]+)|(?P<word>[^\W_{_EAST_ASIAN}]+)")


def grams(text: str) -> str:
    """What is indexed for a text: words, and of Korean and Chinese runs every two letters and the last one."""
    return " ".join(gram for run, joined in _runs(text) for gram in (_pairs(run, True) if joined else [run]))


def query(text: str) -> str:
    """The FTS5 query for what was typed; its last word may be a beginning. Empty where nothing can be looked for."""
    runs = list(_runs(text))
    parts = []
    for number, (run, joined) in enumerate(runs):
        phrase = '"' + " ".join(_pairs(run, False) if joined else [run]) + '"'
        is_beginning = len(run) == 1 if joined else number == len(runs) - 1
        parts.append(phrase + "*" * is_beginning)
    return " AND ".join(parts)


def _runs(text: str) -> Iterator[tuple[str, bool]]:
    for match in _RUN.finditer(unicodedata.normalize("NFKC", text).casefold()):
        yield match[0], match["joined"] is not None


def _pairs(run: str, with_last: bool) -> list[str]:
    pairs = [run[place : place + 2] for place in range(len(run) - 1)]
    return [*pairs, run[-1]] if with_last or not pairs else pairs


class Index:
    """An index in memory: a sealed history leaves no words on disk, and one that is deleted leaves none either."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE words USING fts5(grams, conversation UNINDEXED, message UNINDEXED, part UNINDEXED)"
        )

    def put(self, conversation: str, message: str, parts: Mapping[str, str]) -> None:
        """Index a message's parts by their names, or (`message` empty) a conversation's; what was there goes."""
        rows = [(grams(text), conversation, message, part) for part, text in parts.items() if text]
        with self._lock:
            self._remove(conversation, message)
            self._database.executemany("INSERT INTO words VALUES (?, ?, ?, ?)", rows)

    def remove(self, conversation: str) -> None:
        """Forget a conversation."""
        with self._lock:
            self._database.execute("DELETE FROM words WHERE conversation = ?", (conversation,))

    def find(self, text: str, most: int) -> list[tuple[str, str, str]]:
        """(conversation, message, part) that hold all words of `text`, the best first."""
        wanted = query(text)
        if not wanted:
            return []
        with self._lock:
            return self._database.execute(
                "SELECT conversation, message, part FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?",
                (wanted, most),
            ).fetchall()

    def _remove(self, conversation: str, message: str) -> None:
        self._database.execute(
            "DELETE FROM words WHERE conversation = ? AND message = ?", (conversation, message)
        )
