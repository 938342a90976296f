"""Random events are hidden and predicted from both sides (BERT4Rec, Sun et al., CIKM 2019).

The answer is read at a [MASK] appended behind the last event.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modeling.masking.base import MaskSequence, attend, check_share, hide, last_event
from modeling.sequence import SessionStates, lengths
from modeling.serialization import part


@part
class MaskedLanguageModeling(MaskSequence):
    """Hide random events and predict them from the rest.

    Parameters
    ----------
    hidden_size, padding_idx, reserved, eval_on_last_item_seq_only
        See `MaskSequence`.
    train_on_last_item_seq_only : bool
        Hide the last event of each session and no other.
    mlm_probability : float
        Each event is hidden with this probability; one more, chosen at random, always is. A session of two
        events or more never has all of them hidden; one of a single event carries no loss.
    last_item_probability : float
        In this share of the sessions the last event alone is hidden instead: what inference asks.
    """

    name = "mlm"

    def __init__(
        self,
        hidden_size: int,
        padding_idx: int = 0,
        reserved: int = 1,
        eval_on_last_item_seq_only: bool = True,
        train_on_last_item_seq_only: bool = False,
        mlm_probability: float = 0.15,
        last_item_probability: float = 0.0,
    ) -> None:
        super().__init__(hidden_size, padding_idx, reserved, eval_on_last_item_seq_only, train_on_last_item_seq_only)
        self.mlm_probability = check_share("mlm_probability", mlm_probability, below_one=True)
        self.last_item_probability = check_share("last_item_probability", last_item_probability)
        self.masked_item_embedding = nn.Parameter(torch.empty(hidden_size).normal_(std=0.02))

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"mlm_probability": self.mlm_probability, "last_item_probability": self.last_item_probability}
        return {**super().config(), **own}

    def choose(self, items: Tensor) -> Tensor:
        """Positions [B, L] to hide, drawn from torch's generator."""
        if self.train_on_last_item_seq_only:
            return last_event(items, self.reserved)
        chance = torch.rand(items.shape, device=items.device) < self.mlm_probability
        return hide(items, self.reserved, chance, self.last_item_probability)

    def train_states(self, values: Tensor, items: Tensor, whole: bool = False) -> SessionStates:
        """Hidden positions hold the [MASK] vector and have their item as target."""
        n = lengths(items)
        hidden = self.choose(items)
        values = torch.where(hidden[..., None], self.masked_item_embedding, values)
        targets = items.masked_fill(~hidden, 0)
        return SessionStates(values, attend(n, items.shape[1]), (n - 1).clamp(min=0), targets)

    def inference_states(self, values: Tensor, items: Tensor) -> SessionStates:
        """One more position: the [MASK] vector behind the last event, where the answer is read."""
        n = lengths(items)
        values = torch.cat([values, torch.zeros_like(values[:, :1])], dim=1)
        at_end = torch.arange(values.shape[1], device=items.device) == n[:, None]
        values = torch.where(at_end[..., None], self.masked_item_embedding, values)
        return SessionStates(values, attend(n + 1, values.shape[1]), n)
