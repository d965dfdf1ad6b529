"""Which experts each token in the cache was sent to, kept block by block beside it for requests that ask.

Reinforcement learning replays them (arXiv:2510.11370): a trainer that would choose otherwise by a rounding learns from
another model than the one that was sampled from.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clearseek.config.model import ModelConfig
from clearseek.engine.blocks import BLOCK_TOKENS


class Routes:
    """[MoE layers, blocks, positions, experts per token] int16, ascending within a token."""

    def __init__(self, config: ModelConfig, num_blocks: int, device: torch.device) -> None:
        """Of a model that has routed layers."""
        self.layers = [index for index in range(config.num_layers) if config.is_moe_layer(index)]
        assert self.layers, "the engine refuses to be asked of a model without experts"
        shape = len(self.layers), num_blocks, BLOCK_TOKENS, config.num_experts_per_token
        self.chosen = torch.zeros(shape, dtype=torch.int16, device=device)

    def grow(self, num_blocks: int) -> None:
        """More blocks; what there are keep what they know."""
        layers, known, *rest = self.chosen.shape
        more = self.chosen.new_zeros(layers, num_blocks - known, *rest)
        self.chosen = torch.cat((self.chosen, more), 1)

    def copy_block(self, source: int, to: int) -> None:
        """Make one block know what another does."""
        self.chosen[:, to] = self.chosen[:, source]

    def address(self, layer: int) -> int:
        """Where the kernels write those of a layer; 0: it has none."""
        return self.chosen[self.layers.index(layer)].data_ptr() if layer in self.layers else 0

    def put(self, layer: int, block: Tensor, place: Tensor, mask: Tensor) -> None:
        """The chosen ones of tokens at places of blocks, both [B, T], of the routed layers' `layer`-th.

        `mask` [B, T, E] marks them. Where scores are no numbers it may mark more: then it is any of them.
        """
        count = self.chosen.shape[-1]
        experts = mask.to(torch.int8).topk(count, dim=-1).indices.sort(-1).values
        self.chosen[layer, block, place] = experts.to(torch.int16)

    def of(self, blocks: Sequence[int], first: int, last: int) -> np.ndarray:
        """Those of a sequence's tokens from `first` to `last`: [T, layers, experts per token]."""
        found = self.chosen[:, torch.tensor(blocks, dtype=torch.long, device=self.chosen.device)]
        return found.flatten(1, 2)[:, first:last].transpose(0, 1).cpu().numpy().copy()
