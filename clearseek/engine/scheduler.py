"""Who is computed next: seats waiting sequences, shares out cache blocks and each step's tokens, pauses whom it must.

There are no phases of reading and of answering: every sequence has tokens that the cache doesn't know yet, one or
many, and a step computes as many of them as its budget holds (vLLM's V1 scheduler). A paused sequence gives its
blocks back and is read again later, with what it had sampled; its numbers stay the same.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from clearseek.engine.blocks import BLOCK_TOKENS, BlockPool, chain
from clearseek.engine.routes import Routes
from clearseek.engine.runner import Batch
from clearseek.engine.sequence import Sequence
from clearseek.engine.slots import Slots

_PATIENCE = 16  # sequences that may be seated past a client whose own needs more blocks than are free
REPORTED_ROWS = 128  # of a step, that prompts are to be reported of: each has a row of scores in memory


class Scheduler:
    """`step_tokens` are the most new tokens of a step. `lengthen` gives the pool so many blocks, or fewer."""

    def __init__(
        self,
        pool: BlockPool,
        slots: Slots,
        copy_block: Callable[[int, int], None],
        step_tokens: int,
        lengthen: Callable[[int], None],
    ) -> None:
        self.pool, self.slots, self.step_tokens = pool, slots, step_tokens
        self._copy_block, self._lengthen_pool = copy_block, lengthen  # of all caches
        self.routes: Routes | None = None  # what the runner notes of experts, where somebody asks
        self.num_paused = 0
        self._coming = Counter[bytes]()  # names of the blocks that seated sequences are about to fill
        self._readers: list[str] = []  # clients whose prompts are being read, who is in turn first
        self._waiting: OrderedDict[str, deque[Sequence]] = OrderedDict()  # of each client, served in turn
        self._passed = Counter[str]()  # how many were seated past a client for whose own there was no room

    @property
    def num_waiting(self) -> int:
        """Sequences without a slot."""
        return sum(map(len, self._waiting.values()))

    def add(self, sequence: Sequence, first: bool = False) -> None:
        """Let a sequence wait, behind those of its client or before them."""
        queue = self._waiting.setdefault(sequence.request.client, deque())
        queue.appendleft(sequence) if first else queue.append(sequence)

    def waiting(self) -> Iterator[Sequence]:
        """All that wait."""
        return (sequence for queue in self._waiting.values() for sequence in queue)

    def drop(self, sequence: Sequence) -> None:
        """A sequence waits no more."""
        client = sequence.request.client
        self._waiting[client].remove(sequence)
        if not self._waiting[client]:
            del self._waiting[client], self._passed[client]

    def seat(self) -> None:
        """Fill empty slots, as far as there are blocks for what is to be read; each client in its turn.

        Who was passed over long enough for want of blocks has all that come free, until they are enough.
        """
        free, stuck, lacking = deque(self.slots.free), set[str](), set[str]()
        seated: list[tuple[int, Sequence]] = []
        while free and (client := self._in_turn(stuck)) is not None:
            sequence = self._next_of(client, len(free))
            if sequence is None or not self._find_room(sequence):
                stuck.add(client)
                lacking |= {client} if sequence is not None else set()
                continue
            self.drop(sequence)
            seated.append((free.popleft(), sequence))
            del self._passed[client]
            self._passed.update(lacking)
            if client in self._waiting:
                self._waiting.move_to_end(client)
        if seated:
            self.slots.seat(seated)

    def _in_turn(self, stuck: set[str]) -> str | None:
        """The client that is seated next, where one can be; `stuck` are those that can't."""
        for client in self._waiting:
            if self._passed[client] >= _PATIENCE:
                return None if client in stuck else client
        return next((client for client in self._waiting if client not in stuck), None)

    def batch(self, guesses: Mapping[int, list[int]]) -> tuple[Batch, np.ndarray]:
        """The next step's rows, and the slots whose next token is asked for, in the order of their scores.

        Active slots have their newest token and what is guessed to follow it: scores of all of these are wanted.
        """
        decoding = np.flatnonzero(self.slots.active)
        budget = max(self.step_tokens - len(decoding) - sum(map(len, guesses.values())), 1)
        reading = self._share(budget)
        rows: list[tuple[int, int, int]] = []  # slot, first position, count
        for slot in sorted([*decoding.tolist(), *reading]):
            sequence = self.slots.at(slot)
            is_decoding = slot not in reading
            first = int(self.slots.position[slot]) if is_decoding else sequence.num_computed
            rows.append((slot, first, 0 if is_decoding else reading[slot]))
        return self._batch_of(rows, guesses)

    def _share(self, budget: int) -> dict[int, int]:
        """How many of its tokens each slot that is being read may read, no more than `budget` together."""
        reading: dict[int, int] = {}
        reported = REPORTED_ROWS
        for slot in self._in_reading_order():
            sequence = self.slots.at(slot)
            most = min(budget, reported) if sequence.is_reporting else budget
            if count := min(len(sequence.tokens) - sequence.num_computed, most):
                reading[slot] = count
                budget -= count
                reported -= count * sequence.is_reporting
        return reading

    def _in_reading_order(self) -> list[int]:
        """Slots that are being read: each step begins with another client, a client's go as they were seated."""
        slots: dict[str, list[int]] = {}
        for slot in sorted(self.slots.not_active, key=lambda slot: self.slots.seated[slot]):
            slots.setdefault(self.slots.at(slot).request.client, []).append(slot)
        known = [client for client in self._readers if client in slots]
        turns = known + [client for client in slots if client not in known]
        self._readers = turns[1:] + turns[:1]
        return [slot for client in turns for slot in slots[client]]

    def computed(self, batch: Batch) -> None:
        """A batch's rows are in the cache now: who is read through begins to answer, and others may find it."""
        counts = np.bincount(batch.slots, minlength=len(self.slots.active))
        for slot in self.slots.not_active:
            if count := int(counts[slot]):
                sequence = self.slots.at(slot)
                sequence.num_computed += count
                self._publish(sequence)
                self.slots.active[slot] = sequence.num_computed >= len(sequence.tokens)

    def make_room(self, ahead: int) -> int:
        """Give active slots blocks for their next tokens, `ahead` or as many as there is room for: at least one.

        Where there is no room even for one, the sequence that was seated last is paused.
        """
        while True:
            missing = self.slots.missing_blocks(ahead)
            if self._are_free(int(missing.sum())):
                for slot in np.flatnonzero(missing).tolist():
                    self._lengthen(slot, int(missing[slot]))
                return ahead
            if ahead > 1:
                ahead //= 2
            else:
                self._pause()

    def release(self, slot: int) -> Sequence:
        """Empty a slot and give its blocks back; what they know can still be found."""
        known = int(self.slots.position[slot])
        sequence = self.slots.leave(slot)
        self._note_routes(sequence, known if sequence.is_read else sequence.num_computed)
        if sequence.is_read:
            sequence.tokens = (*sequence.request.prompt, *sequence.sampled)
            sequence.num_computed = known
            self._publish(sequence)
        self.pool.release(sequence.blocks)
        self._coming.subtract(sequence.to_fill)
        sequence.blocks, sequence.names, sequence.to_fill, sequence.num_computed = [], [], [], 0
        return sequence

    def pause_all(self) -> None:
        """Send everyone back to wait: what the cache knows is no longer true."""
        for slot in sorted(self.slots.taken, key=lambda slot: -self.slots.seated[slot]):
            self._send_back(slot)

    def check(self) -> None:
        """Fail where blocks are held by nobody, or not counted, or where one is awaited that nobody fills."""
        seated = [sequence for sequence in self.slots.sequences if sequence is not None]
        self.pool.check(sequence.blocks for sequence in seated)
        to_fill = Counter(name for sequence in seated for name in sequence.to_fill)
        assert +self._coming == to_fill, "blocks are awaited that nobody fills"

    def _next_of(self, client: str, room: int) -> Sequence | None:
        """The client's first that may be seated. Who awaits what is just being read keeps a seat."""
        for number, sequence in enumerate(self._waiting[client]):
            if number >= room:  # every seat is kept for those before it
                return None
            if not self._awaits(sequence):
                return sequence
        return None

    def _find_room(self, sequence: Sequence) -> bool:
        """Blocks for all that is to be read of a waiting sequence, known ones first; False where there are too few."""
        leader = sequence.leader
        if leader is not None and leader.blocks and not sequence.sampled:
            return self._follow(sequence, leader)
        blocks, names = self.pool.find(self._findable(sequence))
        missing = (len(sequence.tokens) - 1) // BLOCK_TOKENS + 1 - len(blocks)
        if not self._are_free(missing):
            self.pool.release(blocks)
            return False
        blocks += [self.pool.take() for _ in range(missing)]
        self._begin(sequence, blocks, names, len(names) * BLOCK_TOKENS)
        return True

    def _begin(self, sequence: Sequence, blocks: list[int], names: list[bytes], known: int) -> None:
        """Give a sequence its first blocks, in which `known` of its tokens are already."""
        sequence.blocks, sequence.names, sequence.num_computed = blocks, names, known
        sequence.to_fill = _chained(sequence, len(sequence.tokens) // BLOCK_TOKENS)[len(names) :]
        self._coming.update(sequence.to_fill)
        if sequence.num_found is None:
            sequence.num_found = known
            self.pool.queries += len(sequence.tokens)
            self.pool.hits += known

    def _follow(self, sequence: Sequence, leader: Sequence) -> bool:
        """Share a prompt's full blocks with the sample that read it, and copy the one that is not full."""
        known = len(sequence.tokens) - 1
        shared, has_rest = divmod(known, BLOCK_TOKENS)
        if not self._are_free(1):
            return False
        for block in leader.blocks[:shared]:
            self.pool.hold(block)
        own = self.pool.take()
        if has_rest:
            self._copy_block(leader.blocks[shared], own)
        self._begin(sequence, [*leader.blocks[:shared], own], leader.names[:shared], known)
        return True

    def _batch_of(
        self, rows: list[tuple[int, int, int]], guesses: Mapping[int, list[int]]
    ) -> tuple[Batch, np.ndarray]:
        rows = [(slot, first, length or 1 + len(guesses.get(slot, ()))) for slot, first, length in rows]
        slots, firsts, lengths = np.array(rows, np.int64).reshape(-1, 3).T
        ends = lengths.cumsum()
        positions = np.arange(lengths.sum()) + np.repeat(firsts - ends + lengths, lengths)
        tokens = np.repeat(self.slots.last_token[slots], lengths)
        is_wanted = np.repeat(self.slots.active[slots] > 0, lengths)
        is_asked = self.slots.active[slots] > 0
        for place in np.flatnonzero(~is_asked).tolist():
            slot, first, length = rows[place]
            sequence = self.slots.at(slot)
            tokens[ends[place] - length : ends[place]] = sequence.tokens[first : first + length]
            is_wanted[ends[place] - 1] = is_asked[place] = first + length == len(sequence.tokens)
        for slot, guessed in guesses.items():
            end = int(ends[np.flatnonzero(slots == slot)[0]])
            tokens[end - len(guessed) : end] = guessed
        batch = Batch(
            tokens, positions, np.repeat(slots, lengths), self.slots.tables, np.flatnonzero(is_wanted)
        )
        return batch, slots[is_asked]

    def _note_routes(self, sequence: Sequence, known: int) -> None:
        """Keep the experts of its first `known` tokens, where they are asked for; those that were kept stay."""
        if self.routes is None or not sequence.request.sampling.routed_experts:
            return
        kept = [] if sequence.routes is None else [sequence.routes]
        first = len(kept[0]) if kept else 0
        sequence.routes = np.concatenate([*kept, self.routes.of(sequence.blocks, first, known)])

    def _publish(self, sequence: Sequence) -> None:
        """Let others find the blocks that are full."""
        full = sequence.num_computed // BLOCK_TOKENS
        for name in _chained(sequence, full)[len(sequence.names) : full]:
            self.pool.publish(sequence.blocks[len(sequence.names)], name)
            sequence.names.append(name)
            if sequence.to_fill:
                self._coming[sequence.to_fill.pop(0)] -= 1

    def _findable(self, sequence: Sequence) -> list[bytes]:
        """Names of the blocks that it may take over: all full ones, its last token left out."""
        count = max(len(sequence.findable) - 1, 0) // BLOCK_TOKENS
        return _chained(sequence, count)[:count]

    def _awaits(self, sequence: Sequence) -> bool:
        """Whether somebody is just reading what it begins with: another sample of its prompt, or another prompt."""
        leader = sequence.leader
        if leader is not None and leader.blocks and not sequence.sampled:
            return leader.num_computed < len(sequence.tokens) - 1
        missing = next((name for name in self._findable(sequence) if not self.pool.knows(name)), None)
        return missing is not None and self._coming[missing] > 0

    def _are_free(self, count: int) -> bool:
        """Whether so many blocks can be taken, of a pool that has grown where it had to and could."""
        if count > self.pool.num_free:
            self._lengthen_pool(self.pool.num_blocks + count - self.pool.num_free)
        return count <= self.pool.num_free

    def _lengthen(self, slot: int, count: int) -> None:
        self.slots.at(slot).blocks += [self.pool.take() for _ in range(count)]
        self.slots.extend_table(slot)

    def _pause(self) -> None:
        """Send the sequence that came last back to wait."""
        self._send_back(max(self.slots.taken, key=lambda slot: self.slots.seated[slot]))

    def _send_back(self, slot: int) -> None:
        """Back to wait, before all others of its client."""
        sequence = self.release(slot)
        sequence.leader = None
        self.num_paused += 1
        self.add(sequence, first=True)


def _chained(sequence: Sequence, count: int) -> list[bytes]:
    """Names of its first `count` full blocks, and maybe more; each is made once.

    They begin with whose they are: how fast an answer comes must tell nobody what others have asked.
    """
    chained, owner = sequence.chained, sequence.request.client.encode()
    for number in range(len(chained), count):
        first = number * BLOCK_TOKENS
        before = chained[-1] if chained else owner
        chained.append(chain(before, sequence.tokens[first : first + BLOCK_TOKENS]))
    return chained
