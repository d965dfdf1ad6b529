"""A day of an engine: random requests, wrong ones too, cancellations, deadlines and new weights over a small cache.

What ends, whole or cut short, is compared with what the request gets alone; a weight swap is repeated there after as
many tokens.
"""

import itertools
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.engine import constraint
from clearseek.engine.engine import Engine
from clearseek.engine.request import Completion, Request, Sampling
from clearseek.engine.sequence import Sequence
from clearseek.engine.speculation import Speculation
from clearseek.model.decoder import Decoder
from tests.engine.scripted import small_tokenizer
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import CONFIGS, some_tokens, tiny_model

NUM_BLOCKS = 8  # of the cache, of which a request takes up to 4
TOKENIZER = small_tokenizer()
ENDS = (TOKENIZER.eos_id, *range(30, 36))
HAS_GRAMMARS = find_spec("llguidance") is not None
SIZES = {"max_position_embeddings": 1024, "num_layers": 2, "vocab_size": TOKENIZER.vocab_size}
FEW = {"num_experts_per_token": 2, "num_expert_groups": 4, "num_limited_groups": 2, "num_dense_layers": 1}
SHAPES = {
    "dense": lambda seed: weighted(lane_sized("qwen3", **SIZES), seed),
    "latent and routed": lambda seed: weighted(lane_sized("deepseek_v3", **SIZES, **FEW), seed),
    "dense without kernels": lambda seed: sized("qwen3", seed),
    "latent and routed without kernels": lambda seed: sized("deepseek_v3", seed),
}
STOPS = ("e", "so", "1", " a", "he", "er", "n ", "5", "7 ", "먼")
FORMS = (
    constraint.choice(["yes", "no", "neither of them"]),
    constraint.regex("[a-c]{2,9}", thinks_first=False),
    constraint.json_schema({"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]},
                           fast_forward=True),
)  # fmt: skip


def sized(name: str, seed: int) -> Decoder:
    """One that the kernels don't know."""
    return tiny_model(CONFIGS[name].model_copy(update={"vocab_size": TOKENIZER.vocab_size}), seed)


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
    jumped: int = (
        0  # of those: not compared, for alone the swap's place lay among tokens that were read at once
    )
    paused: int = 0
    hits: int = 0
    refused: int = 0
    across: int = 0  # ended by a stop string that no single token holds
    kinds: Counter = field(default_factory=Counter)  # settings that were compared


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
        return Engine(self.models[0], ENDS, torch.float32, tokenizer=TOKENIZER, **settings)

    def _tokens(self, count: int, seed: int) -> tuple[int, ...]:
        return tuple(some_tokens(self.models[0].config, 1, count, seed)[0].tolist())

    def request(self, number: int) -> Request:
        """One of every kind."""
        draw = self.draw
        prompt = draw.choice(self.prefixes) + self._tokens(draw.randint(0, 40), 100 + number % 50)
        deadline = draw.uniform(2, 60) if draw.random() < 0.15 else None
        samples = draw.choice((1, 1, 1, 2, 3))
        sampling = self.sampling()
        best_of = samples + draw.randint(0, 1) if sampling.temperature and draw.random() < 0.1 else None
        if sampling.thinking_budget is not None or sampling.constraint is not None:
            prompt = (*prompt, TOKENIZER.think_start_id)
        request = Request(prompt, number % 200, samples, sampling, best_of, draw.choice("ab"), deadline)
        if sampling.stop and draw.random() < 0.8:
            stop = self.across(request)
            request = replace(request, sampling=replace(sampling, stop=stop), deadline_seconds=None)
        return request

    def across(self, request: Request) -> tuple[str, ...]:
        """Stop strings that end in another token than they begin in, of what the first weights answer alone."""
        asked = replace(request.sampling, stop=(), prompt_log_probs=None)
        alone = self.reference.generate([Request(request.prompt, request.key, 1, asked)])[0][0]
        pieces = [TOKENIZER.decode([token]) for token in alone.tokens]
        pairs = [one[-1] + other[0] for one, other in itertools.pairwise(pieces) if one and other]
        whole = [pair for pair in pairs if "\ufffd" not in pair and not any(pair in one for one in pieces)]
        return tuple(whole[-2:]) or request.sampling.stop

    def wrong(self) -> Request:
        """A request that is to be refused by itself."""
        return self.draw.choice(
            [
                Request((), 0),
                Request((1, TOKENIZER.vocab_size), 0),
                Request((1,) * 1000, 0),
                Request((1,) * 900, 0, sampling=Sampling(max_tokens=9)),  # more than the cache
                Request((1,), 0, 3, best_of=2),
                Request((1,), 0, sampling=Sampling(max_tokens=5, thinking_budget=5)),
                Request((1,), 0, sampling=Sampling(stop=("",))),
                Request((1,), 0, sampling=Sampling(constraint=constraint.regex("("))),
            ]
        )

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
        own |= self.of_text(own["max_tokens"])
        if draw.random() < 0.15:
            own["prompt_log_probs"] = draw.randint(0, 2)
        if self.has_experts and draw.random() < 0.3:
            own["routed_experts"] = True
        return Sampling(**own)  # type: ignore[arg-type]

    def of_text(self, max_tokens: int) -> dict[str, object]:
        """Of some a stop string, a bound on the thought, or a form of the answer."""
        draw, chance = self.draw, self.draw.random()
        if chance < 0.2:
            return {"stop": tuple(draw.sample(STOPS, 3))}
        if chance < 0.3 and max_tokens > 1:
            return {"thinking_budget": draw.randint(0, max_tokens - 1)}
        if chance < 0.4 and HAS_GRAMMARS:
            return {"constraint": draw.choice(FORMS), "ignore_eos": False}
        return {}

    def run(self) -> Tally:
        """The day, and in the evening the comparison."""
        left = self.count
        while left or not self.engine.is_idle:
            if left and self.draw.random() < 0.6 and self.engine.scheduler.num_waiting < 30:
                left -= 1
                self._submit(self.request(left))
            if self.draw.random() < 0.05:
                with pytest.raises(InputError):
                    self.engine.submit(self.wrong())
                self.tally.refused += 1
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
                assert alone is not None
                for answer, completion, followed in some:
                    self._tell(completion, alone[answer.sample], not followed.is_reread)
                    self._count(answer.request, completion)
            for answer, completion, followed in group:
                if followed.swaps:
                    self.tally.swapped += 1
                    alone = self._alone(answer.request, followed, answer.sample)
                    if alone is None:
                        self.tally.jumped += 1
                        continue
                    self._tell(completion, alone[answer.sample], False)
                    self._count(answer.request, completion)
        return self.tally

    def _alone(
        self, request: Request, followed: Followed, only: int | None = None
    ) -> dict[int, Completion] | None:
        """Completions by sample, or of one alone, whose weights are swapped as they were; None: they can't be."""
        engine = self.reference
        engine.load_weights(self.models[followed.version])
        request = replace(request, client="", deadline_seconds=None)
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
        return None if swaps else found

    def _count(self, request: Request, completion: Completion) -> None:
        settings, usual = request.sampling, Sampling()
        self.tally.kinds.update(
            name for name in ("stop", "thinking_budget", "constraint")
            if getattr(settings, name) != getattr(usual, name)
        )  # fmt: skip
        self.tally.kinds["best_of"] += request.best_of is not None
        self.tally.kinds["forced"] += bool(completion.forced)
        if isinstance(stop := completion.stopped_by, str):
            self.tally.across += not any(stop in TOKENIZER.decode([token]) for token in completion.tokens)

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
        (found.forced, {place for place in alone.forced if not is_cut or place < count}),
        (
            found.text,
            alone.text if found.text is None or not is_cut else (alone.text or "")[: len(found.text)],
        ),
    ]
    if not is_cut:
        pairs += [
            (found.error, alone.error),
            (found.prompt_log_probs, alone.prompt_log_probs),
            (found.prompt_alternatives, alone.prompt_alternatives),
        ]
    if has_routes and found.routed_experts is not None and alone.routed_experts is not None:
        known = len(found.routed_experts)
        pairs.append((0, int(not np.array_equal(found.routed_experts, alone.routed_experts[:known]))))
    return all(ours == theirs for ours, theirs in pairs)
