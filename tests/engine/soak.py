"""A day of an engine: random requests, cancellations, deadlines and new weights over a cache that is too small.

What ends, whole or cut short, is compared with what the request gets alone; a weight swap is repeated there after as
many tokens.
"""

import itertools
import random
from dataclasses import dataclass, field

import numpy as np
import torch

from clearseek.engine.engine import Engine
from clearseek.engine.request import Completion, Request, Sampling
from clearseek.engine.sequence import Sequence
from clearseek.engine.speculation import Speculation
from clearseek.model.decoder import Decoder
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import CONFIGS, some_tokens, tiny_model

NUM_BLOCKS = 8  # of the cache, of which a request takes up to 4
ENDS = (3,)
FEW = {"num_experts_per_token": 2, "num_expert_groups": 4, "num_limited_groups": 2, "num_dense_layers": 1}
SHAPES = {
    "dense": lambda seed: weighted(lane_sized("qwen3", max_position_embeddings=1024, num_layers=2), seed),
    "latent and routed": lambda seed: weighted(
        lane_sized("deepseek_v3", max_position_embeddings=1024, num_layers=2, **FEW), seed
    ),
    "dense without kernels": lambda seed: tiny_model(CONFIGS["qwen3"], seed),
    "latent and routed without kernels": lambda seed: tiny_model(CONFIGS["deepseek_v3"], seed),
}


def weighted(model: Decoder, seed: int) -> Decoder:
    """Other weights, sharp enough that a wrong context is another answer."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.15, generator=generator)
    return model


@dataclass
class Followed:
    """One answer: the weights it began with, and after how many of its tokens others came."""

    version: int
    swaps: dict[int, int] = field(default_factory=dict)  # tokens → version; of two at one place the later
    is_reread: bool = False  # new weights came before its first token: some routes of its prompt are old


@dataclass
class Tally:
    """What happened."""

    finished: dict[str, int] = field(default_factory=dict)  # by finish reason
    compared: int = 0
    differing: int = 0
    swapped: int = 0
    paused: int = 0
    hits: int = 0


class Soak:
    """`count` requests to an engine of a shape; every choice comes from the seed."""

    def __init__(self, name: str, count: int, seed: int = 0, speculation: str | None = None) -> None:
        self.draw, self.count, self.now = random.Random(seed), count, 0.0
        self.models = [SHAPES[name](version).requires_grad_(False) for version in (0, 1)]
        self.has_experts = any(True for _ in self.models[0].routers())
        guessing = None if speculation is None else Speculation(speculation)
        self.engine = self._engine(clock=lambda: self.now, num_slots=6, step_tokens=60, speculation=guessing)
        self.reference, self.version = self._engine(), 0
        self.engine._make_ready([Request((5,) * 200, 0, 6, Sampling(max_tokens=60))])
        self.prefixes = [self._tokens(self.draw.randint(1, 150), 10 + number) for number in range(6)]
        self.followed: dict[Sequence, Followed] = {}
        self.ended: list[tuple[Sequence, Completion, Followed]] = []
        self.tally = Tally()

    def _engine(self, **settings) -> Engine:
        return Engine(self.models[0], ENDS, torch.float32, **settings)

    def _tokens(self, count: int, seed: int) -> tuple[int, ...]:
        return tuple(some_tokens(self.models[0].config, 1, count, seed)[0].tolist())

    def request(self, number: int) -> Request:
        """One of every kind."""
        draw = self.draw
        prompt = draw.choice(self.prefixes) + self._tokens(draw.randint(0, 40), 100 + number % 50)
        deadline = draw.uniform(2, 60) if draw.random() < 0.15 else None
        samples = draw.choice((1, 1, 1, 2, 3))
        return Request(prompt, number % 200, samples, self.sampling(), None, draw.choice("ab"), deadline)

    def sampling(self) -> Sampling:
        """Half of them plain; the others of one or two settings more."""
        draw = self.draw
        own: dict[str, object] = {
            "temperature": draw.choice((0, 0.7, 1.0)),
            "max_tokens": draw.randint(1, 30),
        }
        more = {
            "top_k": 5, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.3, "frequency_penalty": 0.5,
            "presence_penalty": 0.7, "logit_bias": {7: 3.0}, "stop_ids": (9, 11, 20), "ignore_eos": True,
            "top_log_probs": 2,
        }  # fmt: skip
        if draw.random() < 0.5:
            own |= dict(draw.sample(list(more.items()), draw.randint(1, 2)))
        if draw.random() < 0.15:
            own["prompt_log_probs"] = draw.randint(0, 2)
        if self.has_experts and draw.random() < 0.3:
            own["routed_experts"] = True
        return Sampling(**own)  # type: ignore[arg-type]

    def run(self) -> Tally:
        """The day, and in the evening the comparison."""
        left = self.count
        while left or not self.engine.is_idle:
            if left and self.draw.random() < 0.6 and self.engine.scheduler.num_waiting < 30:
                left -= 1
                self._submit(self.request(left))
            self._step()
            if self.followed and self.draw.random() < 0.05:
                answer = self.draw.choice(list(self.followed))
                completion = self.engine.cancel(answer)
                assert completion is not None
                self._note(answer, completion)
            if self.draw.random() < 0.02:
                self._swap()
            self.engine.scheduler.check()
        assert not self.followed
        assert self.engine.pool.num_free == self.engine.pool.num_blocks == NUM_BLOCKS
        assert not self.engine.deadlines
        self.tally.paused, self.tally.hits = self.engine.scheduler.num_paused, self.engine.pool.hits
        return self.tally

    def _submit(self, request: Request) -> None:
        for answer in self.engine.submit(request):
            self.followed[answer] = Followed(self.version)

    def _step(self) -> None:
        self.now += 1
        told = (lambda *_: None) if self.draw.random() < 0.5 else None  # a token at a time, or many
        for answer, completion in self.engine.step(told):
            self._note(answer, completion)

    def _note(self, answer: Sequence, completion: Completion) -> None:
        self.ended.append((answer, completion, self.followed.pop(answer)))
        count = self.tally.finished.get(completion.finish_reason, 0)
        self.tally.finished[completion.finish_reason] = count + 1

    def _swap(self) -> None:
        self.version = 1 - self.version
        slots = self.engine.slots
        for answer, followed in self.followed.items():
            seat = slots.sequences.index(answer) if answer in slots.sequences else None
            count = len(answer.sampled) if seat is None else int(slots.num_sampled[seat])
            if count:
                followed.swaps[count] = self.version
            else:
                followed.version, followed.is_reread = self.version, True
        self.engine.load_weights(self.models[self.version])

    def compare(self) -> Tally:
        """Every answer with what it is alone."""
        by_request: dict[int, list[tuple[Sequence, Completion, Followed]]] = {}
        for ended in self.ended:
            by_request.setdefault(id(ended[0].request), []).append(ended)
        for group in by_request.values():
            plain = [ended for ended in group if not ended[2].swaps]
            for version, some in itertools.groupby(plain, lambda ended: ended[2].version):
                alone = self._alone(group[0][0].request, Followed(version))
                for answer, completion, followed in some:
                    self._tell(completion, alone[answer.sample], not followed.is_reread)
            for answer, completion, followed in group:
                if followed.swaps:
                    self.tally.swapped += 1
                    alone = self._alone(answer.request, followed, answer.sample)
                    self._tell(completion, alone[answer.sample], False)
        return self.tally

    def _alone(self, request: Request, followed: Followed, only: int | None = None) -> dict[int, Completion]:
        """Completions by sample, or of one alone, whose weights are swapped as they were."""
        engine = self.reference
        engine.load_weights(self.models[followed.version])
        request = Request(request.prompt, request.key, request.num_samples, request.sampling)
        answers, found = engine.submit(request), {}
        for answer in answers:
            if only is not None and answer.sample != only:
                engine.cancel(answer)
        swaps = dict(followed.swaps)
        while not engine.is_idle:
            count = (
                max(engine.slots.num_sampled[slot] for slot in engine.slots.taken)
                if engine.slots.taken
                else 0
            )
            if (version := swaps.pop(int(count), None)) is not None:
                engine.load_weights(self.models[version])
            for answer, completion in engine.step((lambda *_: None) if swaps else None):
                found[answer.sample] = completion
        return found

    def _tell(self, found: Completion, alone: Completion, has_routes: bool) -> None:
        """Count it, as differing where one bit does; what was cut short is a beginning."""
        self.tally.compared += 1
        self.tally.differing += not is_same(found, alone, has_routes)


def is_same(found: Completion, alone: Completion, has_routes: bool) -> bool:
    """Whether all that is reported is the same; of what was cut short, as far as it came."""
    is_cut, count = found.finish_reason in ("cancelled", "deadline"), len(found.tokens)
    if not is_cut and (found.finish_reason, found.stopped_by) != (alone.finish_reason, alone.stopped_by):
        return False
    ends = slice(count if is_cut else None)
    pairs = [
        (found.tokens, alone.tokens[ends]),
        (found.log_probs, alone.log_probs[ends]),
        (found.alternatives, alone.alternatives[ends]),
    ]
    if not is_cut:
        pairs += [
            (found.prompt_log_probs, alone.prompt_log_probs),
            (found.prompt_alternatives, alone.prompt_alternatives),
        ]
    if has_routes and found.routed_experts is not None and alone.routed_experts is not None:
        known = len(found.routed_experts)
        pairs.append((0, int(not np.array_equal(found.routed_experts, alone.routed_experts[:known]))))
    return all(ours == theirs for ours, theirs in pairs)
