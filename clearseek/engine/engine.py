"""The engine: requests in, completions out, many at once over one cache.

What a sample draws depends on its request's key and its number alone, never on the batch around it; and a row's scores
depend on its own context alone: see `model/kernels/paged_attention.h`.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import torch

from clearseek.config.errors import InputError
from clearseek.engine.bell import Bell
from clearseek.engine.best_of import pick_best
from clearseek.engine.blocks import BLOCK_TOKENS, BlockPool
from clearseek.engine.cache_limit import CacheLimit
from clearseek.engine.deadlines import Deadlines
from clearseek.engine.drafters import Drafter, drafter_of
from clearseek.engine.ending import Ending
from clearseek.engine.formats import Format
from clearseek.engine.mixed_formats import Formats, part_names
from clearseek.engine.plain_runner import PlainRunner
from clearseek.engine.reported import PromptReport
from clearseek.engine.request import Completion, FinishReason, Request
from clearseek.engine.row import RowMaker
from clearseek.engine.runner import Runner
from clearseek.engine.runners import (
    AnyRunner,
    inference_copy,
    runner_of,
    settled,
    usual_step_tokens,
    why_plain,
)
from clearseek.engine.scheduler import Scheduler
from clearseek.engine.sequence import Sequence as Answer
from clearseek.engine.slots import Slots
from clearseek.engine.speculation import Acceptance, Speculation
from clearseek.engine.stepper import Stepper
from clearseek.model.decoder import Decoder
from clearseek.text.tokenizer import Tokenizer

OnToken = Callable[[int, int, int], None]  # request index, sample index, token id
_FIRST_BYTES = 1 << 30  # that a cache takes at once, where memory that is not used costs something
_MOST_AT_ONCE = 64  # tokens per call that nobody can interrupt
_MOST_IN_TIME = 8  # the same while somebody has a deadline


class Engine:
    """Holds a copy of a model's weights in the compute dtype and samples from it.

    Without `copies` it samples from the model itself, for as long as its weights do not change. `form` is how the
    kernels keep the weights, by default as exact as `dtype`. Stop strings, thinking budgets and constraints need the
    `tokenizer`. Without `step_tokens` a model's size says how many tokens a step takes. `speculation` changes how fast
    completions come, never what they are; `acceptance` tells how it fares. InputError where the model can't be
    speculated with so, or its weights can't be kept in `form`. Deadlines go by `clock`, in seconds. The
    cache grows as it is needed, to `cache_bytes` at most; by default to what memory allows when it is first asked.

    Where it is `exact` a request's bits depend on nothing but itself: not on what shares its batch, nor on how its
    prompt is cut or cached. Without, long prompts of latent attention go by the expanded form, which is less work; by
    default where that is much less.
    """

    def __init__(
        self,
        model: Decoder,
        stop_ids: Collection[int],
        dtype: torch.dtype,
        num_slots: int = 256,
        copies: bool = True,
        form: Format | Formats | None = None,
        step_tokens: int | None = None,
        tokenizer: Tokenizer | None = None,
        speculation: Speculation | None = None,
        exact: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        cache_bytes: int | None = None,
    ) -> None:
        if speculation is not None:
            speculation.check(model)
        self.speculation, self.acceptance = speculation, Acceptance()
        self.drafter: Drafter | None = None
        self.stop_ids, self.dtype = frozenset(stop_ids), dtype
        self.num_slots, self.step_tokens = num_slots, step_tokens or usual_step_tokens(model)
        self._wanted = form or Format("float32" if dtype == torch.float32 else "bfloat16")
        self.form = settled(self._wanted, model)
        if isinstance(self.form, Formats):
            self.form.check(part_names(model))
        self.why_plain, self.copies = why_plain(model, self.form), copies
        self.exact = model.config.absorbs_cheaply if exact is None else exact
        if self.why_plain and self.form.is_quantised:
            raise InputError(
                f"this model's weights can't be kept in {self.form.name} here: {self.why_plain}; "
                "take bfloat16 or float32"
            )
        # the kernels lay the weights out anyway
        self.model = inference_copy(model, dtype) if copies and self.why_plain else model
        self.maker = RowMaker(model.config.vocab_size, self.stop_ids, tokenizer)
        self.weights_version, self.deadlines, self.bell = 0, Deadlines(clock), Bell()
        self.cache_limit = CacheLimit(
            self.model, self.form, dtype, num_slots, speculation, self._wanted, cache_bytes
        )
        self._parts: tuple[AnyRunner, Slots, BlockPool, Scheduler] | None = None

    @torch.no_grad()
    def load_weights(self, model: Decoder) -> None:
        """Take over a model's current weights; completions from now on carry the next version number.

        What the cache knows is forgotten; sequences on their way are read again and go on with the new weights.
        """
        if self.why_plain is None:
            self.model = model
        else:
            for ours, theirs in zip(
                self.model.state_dict().values(), model.state_dict().values(), strict=True
            ):
                ours.copy_(theirs)
        self.weights_version += 1
        if self._parts is not None:
            self.runner.refresh(self.model)
            self._start_anew()
            for answer in self.scheduler.waiting():
                answer.outdate(self.weights_version - 1)
                if answer.report is not None:
                    answer.report.forget()

    def generate(
        self, requests: Sequence[Request], on_token: OnToken | None = None
    ) -> list[list[Completion]]:
        """Complete every request; returns its samples in order. InputError if a prompt is empty or too long."""
        results: list[list[Completion | None]] = [[None] * request.num_drawn for request in requests]
        for request, index, completion in self.stream(requests, on_token):
            results[request][index] = completion
        groups = [[completion for completion in group if completion is not None] for group in results]
        return [
            pick_best(group, request.num_samples) if request.best_of else group
            for request, group in zip(requests, groups, strict=True)
        ]

    def stream(
        self, requests: Sequence[Request], on_token: OnToken | None = None
    ) -> Iterator[tuple[int, int, Completion]]:
        """As `generate`, yielding (request, sample, completion) as each finishes.

        InputError for the first request that can't be answered, before any is, and while others that were submitted are
        on their way: their completions would come out here. What goes wrong later ends one completion, as an "error".
        """
        if not self.is_idle:
            raise InputError(
                "the engine is answering what was submitted; let `step` finish that before asking for more here"
            )
        for request in requests:
            self.check(request)
        if not requests:
            return
        self._make_ready(requests)
        answers = [
            answer for index, request in enumerate(requests) for answer in self._line_up(request, index)
        ]
        try:
            while not self.is_idle:
                for answer, completion in self.step(on_token):
                    yield answer.index, answer.sample, completion
        finally:
            if not self.is_idle:
                for answer in answers:
                    self.cancel(answer)

    def submit(self, request: Request, index: int = 0) -> list[Answer]:
        """Let a request's samples wait for their turn; `index` is how `on_token` will call it.

        Raises InputError as `check` does.
        """
        self.check(request)
        if self._parts is None or not self._has_room_for(request):
            self._make_ready([request])
        return self._line_up(request, index)

    def _line_up(self, request: Request, index: int) -> list[Answer]:
        """A checked request's samples, now waiting."""
        answers = [self._begun(index, number, request) for number in range(request.num_drawn)]
        count = request.sampling.prompt_log_probs
        report = None if count is None else PromptReport(request.prompt, count)
        if request.sampling.routed_experts:
            self._keep_routes()
        for answer in answers:
            answer.leader = answers[0] if answer is not answers[0] else None
            answer.report = report
            self.deadlines.add(answer)
            self.scheduler.add(answer)
        return answers

    def _keep_routes(self) -> None:
        """Have the experts of tokens noted from now on; what is known without them is read again."""
        if self.scheduler.routes is None:
            self._start_anew()
            self.scheduler.routes = self.runner.keep_routes()

    def _begun(self, index: int, number: int, request: Request) -> Answer:
        """One of a request's samples, before it waits."""
        answer = Answer(index, number, request, request.prompt, self.maker.start(request))
        if not request.sampling.is_simple:
            answer.ending = Ending(request.sampling, self.stop_ids, self.maker.tokenizer)
        return answer

    @torch.no_grad()
    def step(
        self, on_token: OnToken | None = None, at_once: int = _MOST_AT_ONCE
    ) -> list[tuple[Answer, Completion]]:
        """Compute some tokens of whoever is in turn; returns the completions that are finished by it, or late.

        No more than `at_once` tokens of each, one where `on_token` is to be called.
        """
        late = [(answer, self._stop(answer, "deadline")) for answer in self.deadlines.late()]
        self.scheduler.seat()
        slots, runner = self.slots, self.runner
        before = slots.num_sampled.copy() if on_token is not None else None
        turns = min(at_once, _MOST_IN_TIME) if self.deadlines else at_once
        self._stepper.advance(1 if on_token is not None else turns)
        if on_token is not None and before is not None:
            self._tell(on_token, before)
        ended = [self._finish(slot) for slot in slots.not_active if self._is_over(slot)]
        if isinstance(runner, PlainRunner) and any(answer.is_lost for answer, _ in ended):
            self._start_anew()  # else what is no number would be met again in a block that somebody takes over
            runner.clear()
        return late + ended

    def cancel(self, answer: Answer) -> Completion | None:
        """Stop an answer and free what it holds at once; returns what there is of it, None if it had ended."""
        return self._stop(answer, "cancelled") if self.holds(answer) else None

    def answer_now(self, answer: Answer) -> None:
        """Close an answer's thought at its next token, where it has not ended. InputError where it can't be closed."""
        if not self.holds(answer):
            return
        seated = answer in self.slots.sequences
        slot = self.slots.sequences.index(answer) if seated else -1
        told = self.slots.tokens[slot, : self.slots.num_sampled[slot]].tolist() if seated else answer.sampled
        answer.row.answer_now(told)
        if answer.ending is None:
            answer.ending = Ending(answer.request.sampling, self.stop_ids, self.maker.tokenizer)
            answer.text += [answer.ending.feed(token) for token in told]
        if seated:
            self.slots.is_plain[slot] = False

    def _stop(self, answer: Answer, reason: FinishReason) -> Completion:
        """What there is of an answer that waits or is on its way; what it holds is free."""
        if answer in self.slots.sequences:
            self.scheduler.release(self.slots.sequences.index(answer))
        else:
            self.scheduler.drop(answer)
        return self._completion(answer, reason)

    def holds(self, answer: Answer) -> bool:
        """Whether an answer waits or is on its way."""
        return answer in self.slots.sequences or answer in self.scheduler.waiting()

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits or is being answered."""
        return self._parts is None or not (self.slots.taken or self.scheduler.num_waiting)

    @property
    def is_ready(self) -> bool:
        """Whether it has a cache and slots by now; it makes them for the first request."""
        return self._parts is not None

    @property
    def most_tokens(self) -> int:
        """The longest prompt and answer together that the cache can hold."""
        return self._most_blocks() * BLOCK_TOKENS

    @property
    def runner(self) -> AnyRunner:
        """What computes."""
        return self._ready[0]

    @property
    def slots(self) -> Slots:
        """Who is being answered."""
        return self._ready[1]

    @property
    def pool(self) -> BlockPool:
        """The cache's blocks."""
        return self._ready[2]

    @property
    def scheduler(self) -> Scheduler:
        """Who comes next."""
        return self._ready[3]

    @property
    def _stepper(self) -> Stepper:
        return Stepper(
            self.runner, self.slots, self.scheduler, self.stop_ids, self.dtype, self.drafter,
            self.speculation.num_tokens if self.speculation is not None else 0, self.acceptance,
            self.bell,
        )  # fmt: skip

    @property
    def _ready(self) -> tuple[AnyRunner, Slots, BlockPool, Scheduler]:
        assert self._parts is not None, "submit or stream makes it ready"
        return self._parts

    def check(self, request: Request) -> None:
        """InputError where a request can't be answered, whatever else there is to do."""
        limit = self.model.config.max_position_embeddings
        wanted = len(request.prompt) + request.sampling.max_tokens
        if not request.prompt:
            raise InputError("a prompt must hold at least one token")
        self.maker.check(request)
        if request.sampling.routed_experts and not any(self.model.routers()):
            raise InputError("routed_experts is asked of a model without experts; leave it out")
        if wanted > limit:
            raise InputError(
                f"prompt ({len(request.prompt)} tokens) and max_tokens ({request.sampling.max_tokens}) "
                f"exceed the model's context of {limit} tokens"
            )
        if self._blocks_for(request) > self._most_blocks():
            size = self.cache_limit.block_bytes / 2**30
            needed, most = size * self._blocks_for(request), size * self._most_blocks()
            raise InputError(
                f"a request of {wanted} tokens needs more cache than there is room for: {needed:.3g} GiB of "
                f"{most:.3g} GiB; ask for fewer tokens, or allow more (--cache-gib)"
            )

    def _is_over(self, slot: int) -> bool:
        """Whether the sequence of a slot that isn't active has ended; one that is still being read has not."""
        answer = self.slots.at(slot)
        return answer.is_read and bool(self.slots.num_sampled[slot] > len(answer.sampled))

    def _tell(self, on_token: OnToken, before: np.ndarray) -> None:
        for slot in self.slots.taken:
            sequence = self.slots.at(slot)
            for place in range(before[slot], self.slots.num_sampled[slot]):
                if not math.isnan(self.slots.log_probs[slot, place]):
                    on_token(sequence.index, sequence.sample, int(self.slots.tokens[slot, place]))

    def _finish(self, slot: int) -> tuple[Answer, Completion]:
        answer = self.scheduler.release(slot)
        answer.drop_lost()
        if answer.error is not None:
            return answer, self._completion(answer, "error")
        if answer.ending is not None:
            return answer, self._completion(answer, answer.ending.finish_reason or "length")
        is_end = answer.sampled[-1] in self.stop_ids and not answer.request.sampling.ignore_eos
        return answer, self._completion(answer, "stop" if is_end else "length")

    def _completion(self, answer: Answer, reason: FinishReason) -> Completion:
        self.deadlines.drop(answer)
        return answer.completion(reason, self.weights_version)

    def _start_anew(self) -> None:
        """Forget what the cache knows; whoever is on the way is read again."""
        self.scheduler.pause_all()
        self.pool.forget()

    @property
    def _is_fused(self) -> bool:
        """Whether the kernels of processors compute."""
        return self.why_plain is None and self.model.norm.weight.device.type == "cpu"

    def _blocks_for(self, request: Request) -> int:
        return (len(request.prompt) + request.sampling.max_tokens - 2) // BLOCK_TOKENS + 1

    def _most_blocks(self) -> int:
        return self.cache_limit.num_blocks

    def _has_room_for(self, request: Request) -> bool:
        return (
            request.sampling.max_tokens <= self.slots.room
            and self._blocks_for(request) <= self.slots.tables.shape[1]
        )

    def _make_ready(self, requests: Sequence[Request]) -> None:
        """Room in the cache and in the slots for these requests, as many as may be answered at once."""
        blocks = sorted(
            (self._blocks_for(request) for request in requests for _ in range(request.num_drawn)),
            reverse=True,
        )
        room = max(request.sampling.max_tokens for request in requests)
        self._grow(min(sum(blocks[: self.num_slots]), self._most_blocks()), blocks[0], room)

    def reserve(self, num_answers: int, tokens: int) -> None:
        """Make room for so many answers at once, of so many tokens with their prompts, or what the cache may hold.

        So the cache seldom has to grow later, which copies it.
        """
        longest = min((tokens - 1) // BLOCK_TOKENS + 1, self._most_blocks())
        self._grow(min(num_answers * longest, self._most_blocks()), longest, tokens)

    def _grow(self, num_blocks: int, longest: int, room: int) -> None:
        """A cache of so many blocks, and slots for `room` tokens in `longest` blocks each; what is there stays.

        Pages that are never written cost the kernels nothing; elsewhere a cache begins small, and grows when it is
        full.
        """
        if not self._is_fused:
            num_blocks = min(num_blocks, max(_FIRST_BYTES // self.cache_limit.block_bytes, 1))
        if self._parts is None:
            runner, pool = self.new_runner(num_blocks), BlockPool(num_blocks)
            slots = Slots(self.num_slots, room, longest)
            if self.speculation is not None:
                draft = self.speculation.draft
                beside = None if draft is None else self._draft_runner(draft, num_blocks)
                self.drafter = drafter_of(
                    self.speculation, runner, beside, slots, self.model.config.hidden_size
                )
            scheduler = Scheduler(pool, slots, self._copy_block, self.step_tokens, self._lengthen)
            self._parts = runner, slots, pool, scheduler
            return
        self._add_blocks(num_blocks)
        self.slots.grow(room, longest)

    def _lengthen(self, num_blocks: int) -> None:
        """Make the cache hold so many blocks, where it may; by half as much again, since that copies it."""
        self._add_blocks(min(max(num_blocks, self.pool.num_blocks * 3 // 2), self._most_blocks()))

    def _add_blocks(self, num_blocks: int) -> None:
        if num_blocks > self.pool.num_blocks:
            for grown in self._runners:
                grown.grow(num_blocks)
            self.pool.grow(num_blocks)

    def _copy_block(self, source: int, to: int) -> None:
        for runner in self._runners:
            runner.copy_block(source, to)

    @property
    def _runners(self) -> list[Runner]:
        """All that keep a cache in the pool's blocks."""
        beside = None if self.drafter is None else self.drafter.beside
        return [self.runner] if beside is None else [self.runner, beside]

    def new_runner(self, num_blocks: int) -> AnyRunner:
        """What computes, with a cache of its own."""
        predicts = self.speculation is not None and self.speculation.kind == "mtp"
        return runner_of(self.model, self.form, self.dtype, num_blocks, self.copies, predicts, self.exact)

    def _draft_runner(self, draft: Decoder, num_blocks: int) -> Runner:
        form = settled(self._wanted, draft)
        is_plain = why_plain(draft, form) is not None
        model = inference_copy(draft, self.dtype) if is_plain else draft
        return runner_of(model, form, self.dtype, num_blocks, self.copies, exact=self.exact)
