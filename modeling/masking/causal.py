"""Every position predicts the next item; the answer is read at the last event. The backbone must be causal."""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.masking.base import MaskSequence, attend, plain_states
from modeling.sequence import SessionStates, lengths
from modeling.serialization import part


@part
class CausalLanguageModeling(MaskSequence):
    """Predict each next item from the events before it."""

    name = "clm"

    def train_states(self, values: Tensor, items: Tensor, whole: bool = False) -> SessionStates:
        """Targets are the items one position later. The last event of a session has none, and is not seen."""
        n = lengths(items)
        following = torch.cat([items[:, 1:], torch.zeros_like(items[:, :1])], dim=1)
        targets = following.masked_fill(following < self.reserved, 0)
        if self.train_on_last_item_seq_only:
            position = torch.arange(items.shape[1], device=items.device)
            targets = targets.masked_fill(position != (n - 2)[:, None], 0)
        if items.shape[1] > 1 and not whole:  # nothing is read at the last column, so it need not be computed
            values, targets = values[:, :-1], targets[:, :-1]
        return SessionStates(values, attend(n, values.shape[1]), (n - 1).clamp(min=0), targets)

    def inference_states(self, values: Tensor, items: Tensor) -> SessionStates:
        """Read at the last event."""
        return plain_states(values, items)
