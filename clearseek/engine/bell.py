"""A bell that ends a call of many tokens early: the kernels' loop listens for it between tokens."""

import numpy as np


class Bell:
    """Rung from any thread; whoever steps the engine silences it, then sees to what it was rung for."""

    def __init__(self) -> None:
        self.word = np.zeros(1, np.int64)  # kernels read it by its address; not 0: it was rung

    def ring(self) -> None:
        """Let the call on its way end after the token that it is at."""
        self.word[0] = 1

    def silence(self) -> None:
        """Calls may be long again."""
        self.word[0] = 0
