"""Batched generation: prompts are read once per group, finished samples make room at once for waiting ones.

What a sample draws depends on its request's key and its number alone, never on the batch around it.
"""

import copy
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clearseek.config.errors import InputError
from clearseek.engine.forked import can_fork, map_forked
from clearseek.engine.request import Completion, Request, Sampling
from clearseek.engine.sampler import sample
from clearseek.engine.slots import Occupant, Slots
from clearseek.engine.streams import uniforms
from clearseek.model.attention import Cache
from clearseek.model.decoder import Decoder
from clearseek.model.experts import Router
from clearseek.model.indexer import Indexer
from clearseek.model.kernels.decode import FusedDecoder
from clearseek.model.layers import RMSNorm

OnToken = Callable[[int, int, int], None]  # request index, sample index, token id
_PREFILL_ROWS = 64  # prompts read in one pass
_PREFILL_MULTIPLE = 16  # their length is rounded up to it: a CPU prepares every new shape of product
_FORKED_PARAMETERS = 20_000_000  # above, a decoding step is arithmetic, which threads share well
_FORKED_SAMPLES = 64  # below, forking costs more than it saves
_FORKED_SECONDS = 600.0  # to wait for another process after this one is done
_SHRINK_AT = 0.6  # occupied share below which the tail of a batch drops its empty slots


def inference_copy(model: Decoder, dtype: torch.dtype) -> Decoder:
    """A frozen copy with its layers in the compute dtype; what training keeps in fp32 stays in fp32.

    Routers and indexers decide by small differences: rounded weights would choose otherwise.
    """
    copied = copy.deepcopy(model).requires_grad_(False).eval()
    for layer in copied.layers:
        layer.to(dtype)
    for module in copied.modules():
        if isinstance(module, (RMSNorm, Router, Indexer)):
            module.float()
    with torch.no_grad():
        for ours, theirs in zip(copied.state_dict().values(), model.state_dict().values(), strict=True):
            ours.copy_(theirs)
    return copied


def next_logits(model: Decoder, fused: FusedDecoder | None, slots: Slots) -> Tensor:
    """Scores [B, V] of every slot's next token, by the kernels where the model fits them; extends the caches."""
    if fused is not None:
        return fused.logits(fused.decode(slots.last_token, slots.position, slots.caches))
    dtype = slots.caches[0][0].dtype
    return model.logits(model.decode(slots.last_token, slots.position, slots.caches, dtype))


class Engine:
    """Holds a copy of a model's weights in the compute dtype and samples from it.

    A token of `stop_ids` ends a completion, as its last. Without `copies` it samples from the model itself, for as
    long as its weights do not change.
    """

    def __init__(
        self,
        model: Decoder,
        stop_ids: Collection[int],
        dtype: torch.dtype,
        num_slots: int = 256,
        copies: bool = True,
    ) -> None:
        self.stop_ids, self.dtype, self.num_slots = frozenset(stop_ids), dtype, num_slots
        self.model = inference_copy(model, dtype) if copies else model
        self.fused = FusedDecoder.of(self.model, dtype)
        self.weights_version = 0

    @torch.no_grad()
    def load_weights(self, model: Decoder) -> None:
        """Take over a model's current weights; completions from now on carry the next version number."""
        for ours, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            ours.copy_(theirs)
        self.fused = FusedDecoder.of(self.model, self.dtype)
        self.weights_version += 1

    def generate(
        self, requests: Sequence[Request], on_token: OnToken | None = None
    ) -> list[list[Completion]]:
        """Complete every request; returns its samples in order. InputError if a prompt is empty or too long.

        All requests of one call share temperature and top_p; their budgets may differ.
        """
        if on_token is None and self._is_worth_forking(requests):
            return self._generate_forked(requests)
        results: list[list[Completion | None]] = [[None] * request.num_samples for request in requests]
        for request, index, completion in self.stream(requests, on_token):
            results[request][index] = completion
        return [[completion for completion in group if completion is not None] for group in results]

    def _is_worth_forking(self, requests: Sequence[Request]) -> bool:
        """Small models on several cores: there one process per core samples about twice as fast as threads."""
        on_cpu = self.model.embedding.weight.device.type == "cpu"
        if not (on_cpu and can_fork() and torch.get_num_threads() > 1 and len(requests) > 1):
            return False
        small = sum(parameter.numel() for parameter in self.model.parameters()) <= _FORKED_PARAMETERS
        return small and sum(request.num_samples for request in requests) >= _FORKED_SAMPLES

    def _generate_forked(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Share the requests out over one process per core; a sample does not depend on where it is drawn."""
        count = min(torch.get_num_threads(), len(requests))
        parts = map_forked(self.generate, [requests[i::count] for i in range(count)], _FORKED_SECONDS)
        return [parts[i % count][i // count] for i in range(len(requests))]

    @torch.no_grad()
    def stream(
        self, requests: Sequence[Request], on_token: OnToken | None = None
    ) -> Iterator[tuple[int, int, Completion]]:
        """As `generate`, yielding (request, sample, completion) as each finishes."""
        if not requests:
            return
        self._check(requests)
        sampling = requests[0].sampling
        length = max(len(request.prompt) + request.sampling.max_tokens for request in requests)
        num_samples = sum(request.num_samples for request in requests)
        slots = Slots(
            self.model,
            min(self.num_slots, num_samples),
            length,
            max(request.sampling.max_tokens for request in requests),
            self.dtype,
            self.stop_ids,
        )
        waiting = deque((r, s) for r, request in enumerate(requests) for s in range(request.num_samples))
        prompts = _Prompts(self.model, requests, self.dtype)
        while waiting or any(occupant is not None for occupant in slots.occupants):
            self._fill(slots, waiting, requests, prompts)
            for slot in self._advance(slots, sampling, on_token):
                occupant, completion = slots.release(slot, self.weights_version)
                yield occupant.request, occupant.sample, completion
            self._shrink(slots, bool(waiting))

    def _advance(self, slots: Slots, sampling: Sampling, on_token: OnToken | None) -> list[int]:
        """A token for every slot, or several where nobody asks for each; returns the slots that are finished."""
        is_plain = sampling.temperature > 0 and sampling.top_p == 1
        if self.fused is not None and on_token is None and is_plain:
            return slots.decode_on(self.fused, sampling.temperature)
        logits, numbers = next_logits(self.model, self.fused, slots), slots.next_uniforms()
        drawn = sample(logits, numbers, sampling.temperature, sampling.top_p, self.dtype)
        if on_token is not None:
            for occupant, token in zip(slots.occupants, drawn.tokens.tolist(), strict=True):
                if occupant is not None:
                    on_token(occupant.request, occupant.sample, token)
        return slots.record(drawn)

    def _fill(
        self, slots: Slots, waiting: deque[tuple[int, int]], requests: Sequence[Request], prompts: "_Prompts"
    ) -> None:
        """Seat waiting samples, a request's samples together as far as there is room."""
        if not waiting:
            return
        free = deque(slots.free)
        while waiting and free:
            index = waiting[0][0]
            request = requests[index]
            seats, occupants = [], []
            while waiting and free and waiting[0][0] == index:
                seats.append(free.popleft())
                occupants.append(Occupant(*waiting.popleft()))
            budget = request.sampling.max_tokens
            drawn = torch.stack(
                [torch.from_numpy(uniforms(request.key, occupant.sample, budget)) for occupant in occupants]
            )
            tokens, entries = prompts.read(index)
            slots.admit(seats, occupants, tokens, entries, drawn.to(tokens.device))

    def _shrink(self, slots: Slots, has_waiting: bool) -> None:
        """Drop empty slots once nothing waits and many are empty."""
        occupied = sum(occupant is not None for occupant in slots.occupants)
        if not has_waiting and 0 < occupied < _SHRINK_AT * slots.size:
            slots.keep_occupied()

    def _check(self, requests: Sequence[Request]) -> None:
        limit = self.model.config.max_position_embeddings
        first = requests[0].sampling
        for request in requests:
            wanted = len(request.prompt) + request.sampling.max_tokens
            if not request.prompt:
                raise InputError("a prompt must hold at least one token")
            if wanted > limit:
                raise InputError(
                    f"prompt ({len(request.prompt)} tokens) and max_tokens ({request.sampling.max_tokens}) "
                    f"exceed the model's context of {limit} tokens"
                )
            if (request.sampling.temperature, request.sampling.top_p) != (first.temperature, first.top_p):
                raise InputError("requests of one batch must share temperature and top_p")


class _Prompts:
    """Reads prompts in batches, each once, and keeps its cache entries until all its samples are seated."""

    def __init__(self, model: Decoder, requests: Sequence[Request], dtype: torch.dtype) -> None:
        self.model, self.requests, self.dtype = model, requests, dtype
        self.ready: dict[int, tuple[Tensor, list[Cache]]] = {}

    def read(self, index: int) -> tuple[Tensor, list[Cache]]:
        """A request's prompt tokens [T] and its cache entries, [T − 1 or more, size] per tensor."""
        if index not in self.ready:
            self.ready = {}
            self._read_batch(range(index, min(index + _PREFILL_ROWS, len(self.requests))))
        return self.ready[index]

    def _read_batch(self, indices: range) -> None:
        device = self.model.embedding.weight.device
        prompts = [torch.tensor(self.requests[i].prompt, dtype=torch.long) for i in indices]
        padded = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True).to(device)
        padded = F.pad(padded, (0, -padded.shape[1] % _PREFILL_MULTIPLE))
        caches = self.model.prefill(padded, self.dtype)
        for row, index in enumerate(indices):
            entries = [tuple(tensor[row] for tensor in cache) for cache in caches]
            self.ready[index] = prompts[row].to(device), entries
