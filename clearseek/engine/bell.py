"""A bell that ends a call of many tokens early: the kernels' loop listens for it between tokens."""

import numpy as np


class Bell:
    """Rung from any thread; whoever steps the engine silences it, then sees to what it was rung for."""

    def __init__(self) -> None:
        self.words = np.zeros(
            2, np.int64
        )  # kernels read them by their address: whether it was rung, `listen_from`

    def ring(self) -> None:
        """Let the call on its way end after the token that it is at."""
        self.words[0] = 1

    def silence(self) -> None:
        """Calls may be long again."""
        self.words[0] = 0

    def listen_from(self, turn: int) -> None:
        """Let a call be deaf for its first turns: what it is rung for meanwhile is seen to together."""
        self.words[1] = turn
