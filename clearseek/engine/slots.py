"""The state of a batch being decoded: a number of slots, each with a cache row and its sample's stream.

Everything per token is a tensor over slots; Python sees a slot only when a sample enters or leaves it.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from clearseek.engine.request import Completion, FinishReason
from clearseek.engine.sampler import Sampled
from clearseek.model.attention import Cache
from clearseek.model.decoder import Decoder, Layer
from clearseek.model.kernels.decode import FusedDecoder

_MOST_AT_ONCE = 64  # tokens per call that nobody can interrupt


@dataclass(frozen=True)
class Occupant:
    """Which sample of which request sits in a slot."""

    request: int
    sample: int


class Slots:
    """`size` rows of cache for up to `length` positions, and what each row has sampled so far.

    An empty slot decodes on at position 0 and what it draws is ignored: shapes stay the same.
    """

    PER_SLOT = (
        "last_token", "position", "num_sampled", "budget", "active",
        "tokens", "log_probs", "entropies", "uniforms",
    )  # fmt: skip

    def __init__(
        self,
        model: Decoder,
        size: int,
        length: int,
        max_tokens: int,
        dtype: torch.dtype,
        stop_ids: Collection[int],
    ) -> None:
        """A token of `stop_ids` ends the sample in its slot."""
        device = model.embedding.weight.device
        self.stop_ids = torch.tensor(sorted(stop_ids), dtype=torch.long, device=device)
        self.caches: list[Cache] = []
        for layer in model.layers:
            assert isinstance(layer, Layer)
            sizes = layer.attention.cache_sizes
            self.caches.append(tuple(torch.zeros(size, length, n, dtype=dtype, device=device) for n in sizes))
        self.occupants: list[Occupant | None] = [None] * size
        self.last_token = torch.zeros(size, dtype=torch.long, device=device)
        self.position = torch.zeros(size, dtype=torch.long, device=device)  # where `last_token` goes
        self.num_sampled = torch.zeros(size, dtype=torch.long, device=device)
        self.budget = torch.ones(size, dtype=torch.long, device=device)
        self.active = torch.zeros(size, dtype=torch.bool, device=device)
        self.tokens = torch.zeros(size, max_tokens, dtype=torch.long, device=device)
        self.log_probs = torch.zeros(size, max_tokens, device=device)
        self.entropies = torch.zeros(size, max_tokens, device=device)
        self.uniforms = torch.zeros(size, max_tokens, device=device)

    @property
    def size(self) -> int:
        """Number of slots."""
        return len(self.occupants)

    @property
    def free(self) -> list[int]:
        """Indices of the empty slots."""
        return [slot for slot, occupant in enumerate(self.occupants) if occupant is None]

    def admit(
        self,
        slots: list[int],
        occupants: list[Occupant],
        prompt: Tensor,
        entries: list[Cache],
        uniforms: Tensor,
    ) -> None:
        """Put samples of one prompt [T] into empty slots; the last prompt token is fed at the next step.

        `entries` hold the prompt's cache, [≥ T − 1, size] each; `uniforms` [len(slots), max_tokens].
        """
        known, budget = prompt.shape[0] - 1, uniforms.shape[1]
        for kept, new in zip(self.caches, entries, strict=True):
            for tensor, entry in zip(kept, new, strict=True):
                tensor[slots, :known] = entry[:known]
        for slot, occupant in zip(slots, occupants, strict=True):
            self.occupants[slot] = occupant
        self.last_token[slots] = prompt[-1]
        self.position[slots], self.budget[slots], self.active[slots] = known, budget, True
        self.uniforms[slots, :budget] = uniforms

    def next_uniforms(self) -> Tensor:
        """The number that each slot's next token is drawn with, [size]."""
        return self.uniforms.gather(1, self.num_sampled.unsqueeze(1)).squeeze(1)

    def record(self, sampled: Sampled) -> list[int]:
        """Note one token per slot; returns the slots that are finished and must be released now."""
        where = self.num_sampled.unsqueeze(1)
        self.tokens.scatter_(1, where, sampled.tokens.unsqueeze(1))
        self.log_probs.scatter_(1, where, sampled.log_probs.unsqueeze(1))
        self.entropies.scatter_(1, where, sampled.entropies.unsqueeze(1))
        self.num_sampled += self.active
        self.position += self.active
        self.last_token = sampled.tokens
        return self.finished()

    def decode_on(self, fused: FusedDecoder, temperature: float) -> list[int]:
        """What `next_uniforms`, a draw and `record` do, for as many tokens as pass until a slot is finished."""
        tensors = [getattr(self, name) for name in self.PER_SLOT]
        fused.decode_on(tensors, self.caches, temperature, self.stop_ids, _MOST_AT_ONCE)
        return self.finished()

    def finished(self) -> list[int]:
        """The slots whose last token was an end, or the last of their budget."""
        ended = (self.last_token.unsqueeze(1) == self.stop_ids).any(1)
        done = self.active & (ended | (self.num_sampled >= self.budget))
        return done.nonzero().flatten().tolist()

    def release(self, slot: int, version: int) -> tuple[Occupant, Completion]:
        """Empty a finished slot and hand out its completion."""
        occupant = self.occupants[slot]
        assert occupant is not None
        count = int(self.num_sampled[slot])
        tokens = self.tokens[slot, :count].tolist()
        reason: FinishReason = "stop" if tokens[-1] in self.stop_ids.tolist() else "length"
        completion = Completion(
            tokens,
            self.log_probs[slot, :count].tolist(),
            reason,
            float(self.entropies[slot, :count].mean()),
            version,
        )
        self.occupants[slot] = None
        self.active[slot], self.num_sampled[slot], self.position[slot] = False, 0, 0
        return occupant, completion

    def keep_occupied(self) -> None:
        """Drop the empty slots, so that the tail of a batch does not pay for them."""
        kept = [slot for slot, occupant in enumerate(self.occupants) if occupant is not None]
        index = torch.tensor(kept, device=self.active.device)
        self.occupants = [self.occupants[slot] for slot in kept]
        self.caches = [tuple(tensor[index] for tensor in cache) for cache in self.caches]
        for name in self.PER_SLOT:
            setattr(self, name, getattr(self, name)[index])
