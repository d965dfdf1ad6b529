"""The pool of cache blocks: who holds which, and which prompts' beginnings they already know.

A block is 64 positions of every layer. Blocks that nobody holds keep what they know until somebody needs the room,
least recently used first; a prompt that begins with what a block and all before it hold takes them over.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

BLOCK_TOKENS = 64  # as in paged_attention.h


def chain(previous: bytes, tokens: Sequence[int]) -> bytes:
    """What names a full block: its tokens and all before it."""
    return hashlib.blake2b(previous + array("q", tokens).tobytes(), digest_size=16).digest()


class BlockPool:
    """`num_blocks` blocks, held by counting.

    `hits` and `queries` count prompt tokens found and looked for, of each sequence once, however often it is paused.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.holders = [0] * num_blocks
        self.hits = self.queries = 0
        self._names: list[bytes | None] = [None] * num_blocks
        self._known: dict[bytes, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict((block, None) for block in range(num_blocks))

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    def take(self) -> int:
        """A block to write to, held once; the least recently used of the free ones forgets what it knew."""
        assert self._free, "the caller asks for no more than there is"
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self.holders[block] = 1
        return block

    def hold(self, block: int) -> None:
        """One holder more."""
        if self.holders[block] == 0:
            del self._free[block]
        self.holders[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """One holder less of each; the last of a sequence's blocks is the first to be used anew."""
        for block in reversed(list(blocks)):
            self.holders[block] -= 1
            if self.holders[block] == 0:
                self._free[block] = None
                self._free.move_to_end(block, last=self._names[block] is not None)

    def publish(self, block: int, name: bytes) -> None:
        """Let others find a full block by its name; of two equal ones the first stays, as long as somebody holds it."""
        if self._names[block] is not None:
            return
        known = self._known.get(name)
        if known is not None:
            if self.holders[known]:
                return
            self._forget(known)
            self._free.move_to_end(known, last=False)
        self._names[block], self._known[name] = name, block

    def knows(self, name: bytes) -> bool:
        """Whether a block of that name can be found."""
        return name in self._known

    def find(self, names: Iterable[bytes]) -> tuple[list[int], list[bytes]]:
        """The blocks, now held, that know the longest beginning of a chain of `names`, and their names."""
        blocks: list[int] = []
        found: list[bytes] = []
        for name in names:
            block = self._known.get(name)
            if block is None:
                break
            self.hold(block)
            blocks.append(block)
            found.append(name)
        return blocks, found

    def grow(self, num_blocks: int) -> None:
        """More blocks, up to `num_blocks`."""
        for block in range(self.num_blocks, num_blocks):
            self.holders.append(0)
            self._names.append(None)
            self._free[block] = None
        self.num_blocks = num_blocks

    def forget(self) -> None:
        """What blocks know belongs to weights that are gone: none is found any more."""
        self._known.clear()
        self._names = [None] * self.num_blocks

    def check(self, held: Iterable[Sequence[int]]) -> None:
        """Fail where the counts don't agree with the lists of blocks that are `held`."""
        counts = [0] * self.num_blocks
        for blocks in held:
            for block in blocks:
                counts[block] += 1
        assert counts == self.holders, "a block is held by another number of sequences than counted"
        assert {block for block, count in enumerate(counts) if not count} == set(self._free)
        assert all(self._names[block] == name for name, block in self._known.items())

    def _forget(self, block: int) -> None:
        name = self._names[block]
        if name is not None:
            del self._known[name]
            self._names[block] = None
