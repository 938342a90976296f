"""Events are predicted one after another in a random order, each from what came before it in that order.

Permutation language modelling (XLNet, Yang et al., NeurIPS 2019) with its span-based choice of what is predicted.
The backbone must have two streams: one that knows the event at each position, and one, the query stream, that does
not and from which the answer is read.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from modeling.masking.base import MaskSequence, attend, check_share, hide, last_event
from modeling.sequence import SessionStates, lengths
from modeling.serialization import part


@part
class PermutationLanguageModeling(MaskSequence):
    """Predict spans of events in a random order; the others are seen by all.

    Parameters
    ----------
    hidden_size, padding_idx, reserved, eval_on_last_item_seq_only, train_on_last_item_seq_only
        See `MaskSequence`.
    plm_probability : float
        Share of the events that are predicted: a span of s events is surrounded by ``s / plm_probability`` of context.
    max_span_length : int
        Spans have 1 to so many events.
    permute_all : bool
        Predict every event instead of spans.
    last_item_probability : float
        In this share of the sessions the last event alone is predicted, from all others: what inference asks.
    """

    name = "plm"

    def __init__(
        self,
        hidden_size: int,
        padding_idx: int = 0,
        reserved: int = 1,
        eval_on_last_item_seq_only: bool = True,
        train_on_last_item_seq_only: bool = False,
        plm_probability: float = 1 / 6,
        max_span_length: int = 5,
        permute_all: bool = False,
        last_item_probability: float = 0.0,
    ) -> None:
        super().__init__(hidden_size, padding_idx, reserved, eval_on_last_item_seq_only, train_on_last_item_seq_only)
        self.plm_probability = check_share("plm_probability", plm_probability)
        if not plm_probability:
            raise ValueError("plm_probability must be above 0")
        if max_span_length < 1:
            raise ValueError(f"max_span_length must be at least 1, not {max_span_length}")
        self.max_span_length = max_span_length
        self.permute_all = permute_all
        self.last_item_probability = check_share("last_item_probability", last_item_probability)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("plm_probability", "max_span_length", "permute_all", "last_item_probability")
        return {**super().config(), **{name: getattr(self, name) for name in names}}

    def choose(self, items: Tensor) -> Tensor:
        """Positions [B, L] to predict, drawn from torch's generator."""
        if self.train_on_last_item_seq_only:
            return last_event(items, self.reserved)
        if self.permute_all:
            return (items >= self.reserved) & (lengths(items) >= 2)[:, None]
        return hide(items, self.reserved, self._spans(items), self.last_item_probability)

    def _spans(self, items: Tensor) -> Tensor:
        """Spans [B, L], each somewhere in a stretch of its own; the stretches follow one another."""
        rows, columns = items.shape
        shortest = max(1, int(1 / self.plm_probability))
        shape = (rows, math.ceil(columns / shortest))
        size = torch.randint(1, self.max_span_length + 1, shape, device=items.device)
        stretch = (size / self.plm_probability).long()
        begin = stretch.cumsum(1) - stretch
        start = begin + (torch.rand(shape, device=items.device) * (stretch - size + 1)).long()
        position = torch.arange(columns, device=items.device)
        inside = (position >= start[..., None]) & (position < (start + size)[..., None])
        return inside.any(1)

    def train_states(self, values: Tensor, items: Tensor, whole: bool = False) -> SessionStates:
        """Chosen positions have their item as target, and see the others and those before them in a random order."""
        n = lengths(items)
        chosen = self.choose(items)
        turn = torch.rand(items.shape, device=items.device).masked_fill(~chosen, -1.0)
        # What is not chosen comes before everything, and is seen by all.
        visible = ~chosen[:, None, :] | (turn[:, None, :] < turn[:, :, None])
        targets = items.masked_fill(~chosen, 0)
        return SessionStates(values, attend(n, items.shape[1]), (n - 1).clamp(min=0), targets, visible)

    def inference_states(self, values: Tensor, items: Tensor) -> SessionStates:
        """One more position behind the last event, which sees the session and which nothing sees."""
        n = lengths(items)
        values = torch.cat([values, torch.zeros_like(values[:, :1])], dim=1)
        seen = attend(n, values.shape[1])
        return SessionStates(values, seen, n, None, seen[:, None, :].expand(-1, values.shape[1], -1))
