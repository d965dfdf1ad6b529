"""What a problem is: a prompt, the answer that counts as right, and how it is checked."""

from dataclasses import dataclass
from hashlib import sha256

LANGUAGES = ("ko", "zh", "en")
_HELD_OUT_ONE_IN = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem; `solution` is a worked thought in the problem's language, "" where none is known."""

    family: str
    language: str
    level: int
    prompt: str
    answer: str
    verifier: str
    solution: str = ""
    seed: int | None = None  # what its family drew it from; None for users' own problems

    @property
    def id(self) -> str:
        """16 hex digits of the SHA-256 of prompt, answer and verifier: same content, same problem.

        Of a verifier by path only the file's name counts, and nothing after `#` (where a problem came from).
        """
        verifier = self.verifier.partition("#")[0].rpartition("/")[2]
        content = f"{self.prompt}\0{self.answer}\0{verifier}"
        return sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def held_out(self) -> bool:
        """Whether the problem is kept for evaluation: one in eight, decided by its content alone."""
        return int(self.id, 16) % _HELD_OUT_ONE_IN == 0
