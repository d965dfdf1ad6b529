"""DeepSeek-V3.2's lightning indexer: a light attention of its own that chooses what each token may see.

As published it is not trained through the model's loss: its choice has no gradient.

Shapes: B rows, T tokens, S positions, H index heads, D index head size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearseek.config.model import ModelConfig
from clearseek.model.layers import Linear
from clearseek.model.rotary import Turn, rotate

_NORM_EPS = 1e-6


class Indexer(nn.Module):
    """Scores every visible position for every token and keeps the best `index_topk` (DeepSeek-V3.2, eq. 1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_size = config.index_num_heads or 0, config.index_head_dim or 0
        self.topk = config.index_topk or 0
        self.q = Linear(config.q_lora_rank or 0, self.num_heads * self.head_size)
        self.k = Linear(config.hidden_size, self.head_size)
        self.k_norm = nn.LayerNorm(self.head_size, eps=_NORM_EPS)
        self.weights = Linear(config.hidden_size, self.num_heads)

    def key(self, x: Tensor, turn: Turn) -> Tensor:
        """The key that the cache keeps of x [B, T, hidden]: [B, T, D]. Rotary turns halves of its first part."""
        wide = self.k(x).float()
        weight, bias = self.k_norm.weight.float(), self.k_norm.bias.float()
        normed = F.layer_norm(wide, (self.head_size,), weight, bias, _NORM_EPS).to(x.dtype)
        return rotate(normed.unsqueeze(-2), turn, first=True).squeeze(-2)

    @torch.no_grad()
    def forward(self, x: Tensor, query_latent: Tensor, turn: Turn, keys: Tensor, visible: Tensor) -> Tensor:
        """What of `visible` (bool [B, 1, T, S]) each token sees, given the keys [B, S, D] of every position."""
        if keys.shape[1] <= self.topk:
            return visible
        query = rotate(self.q(query_latent).unflatten(-1, (self.num_heads, -1)), turn, first=True)
        scores = query.float().flatten(1, 2) @ keys.float().transpose(-1, -2) * self.head_size**-0.5
        scores = scores.relu().unflatten(1, (-1, self.num_heads))  # [B, T, H, S]
        weights = F.linear(x.float(), self.weights.weight.float()) * self.num_heads**-0.5
        total = (weights.unsqueeze(-2) @ scores).squeeze(-2).masked_fill(~visible[:, 0], float("-inf"))
        # of equal scores the earlier position wins, however long the cache is: sampler and trainer must agree
        best = total.sort(dim=-1, descending=True, stable=True).indices[..., : self.topk]
        chosen = torch.zeros_like(total, dtype=torch.bool).scatter(-1, best, True)
        return visible & chosen.unsqueeze(1)
