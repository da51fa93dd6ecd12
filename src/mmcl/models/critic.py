"""Joint critic: predicts the reward from the state and the actions of all modalities."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.layers import NEVER, BatchNorm, Dropout, ModalityBlock, weighted_mean

__all__ = ["Critic"]


class Critic(nn.Module):
    """``Q(s, a)``, joint over the modalities.

    Each action is repeated H times, so that the H heads can divide the width d + H evenly.

    Source:
        The released code. Masked means and attention are ours (fault F7).
    """

    def __init__(
        self, num_modalities: int, width: int, heads: int, inner_width: int, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.copies = heads
        wide = width + heads
        self.block = ModalityBlock(num_modalities, wide, heads, inner_width, dropout=0.0)
        self.linear1 = nn.Linear(num_modalities * wide, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)
        self.dropout = Dropout(dropout)
        self.norm = BatchNorm(width)
        self.value = nn.Linear(width, 1)

    def forward(self, state: Tensor, actions: Tensor, step_mask: Tensor) -> Tensor:
        """Value every clip's state and actions.

        Args:
            state: ``[m, b, n, d]``.
            actions: ``[m, b, n]``, in 0..1.
            step_mask: Real steps, bool ``[m, b, n]``.

        Returns:
            Value of every clip, ``[b]``, in units of the reward.
        """
        # [s_m ; a_m repeated H times]
        copies = actions.unsqueeze(-1).expand(*actions.shape, self.copies)
        inputs = torch.cat([state, copies], dim=-1)  # [m, b, n, d + H]
        # Transformer block and mean over time, per modality.
        weight = step_mask.to(inputs.dtype)
        pooled = weighted_mean(self.block(inputs, (1 - weight) * NEVER), weight)  # [m, b, d + H]
        # One value per clip; as released, no activation between the first two linear layers.
        hidden = self.linear2(self.linear1(pooled.transpose(0, 1).flatten(1)))
        value: Tensor = self.value(self.norm(F.relu(self.dropout(hidden))))
        return value.squeeze(-1)
