"""What the objectives have in common. Ids below `reserved` (padding, null, unknown) are never a target."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modeling.sequence import SessionStates, lengths


def attend(n: Tensor, columns: int) -> Tensor:
    """[B, columns] bool: the first `n` positions of each row, and always the very first."""
    return torch.arange(columns, device=n.device) < n.clamp(min=1)[:, None]


def plain_states(values: Tensor, items: Tensor) -> SessionStates:
    """All events as they are, read at the last one: what objectives without a [MASK] infer from."""
    n = lengths(items)
    return SessionStates(values, attend(n, items.shape[1]), (n - 1).clamp(min=0))


class MaskSequence(nn.Module):
    """Base of the objectives.

    Parameters
    ----------
    hidden_size : int
        Width of the vectors that are masked.
    padding_idx : int
        The id of padding; only 0 is supported.
    reserved : int
        Ids below it carry no loss.
    eval_on_last_item_seq_only : bool
        Test on the last item of each session. Otherwise on every item but the first, each from the events
        before it and from nothing else, whatever the objective.
    train_on_last_item_seq_only : bool
        Learn from the last item of each session only.
    """

    name = ""

    def __init__(
        self,
        hidden_size: int,
        padding_idx: int = 0,
        reserved: int = 1,
        eval_on_last_item_seq_only: bool = True,
        train_on_last_item_seq_only: bool = False,
    ) -> None:
        super().__init__()
        if padding_idx != 0:
            raise ValueError(f"padding_idx must be 0, not {padding_idx}")
        self.hidden_size = hidden_size
        self.reserved = reserved
        self.eval_on_last_item_seq_only = eval_on_last_item_seq_only
        self.train_on_last_item_seq_only = train_on_last_item_seq_only

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("hidden_size", "reserved", "eval_on_last_item_seq_only", "train_on_last_item_seq_only")
        return {name: getattr(self, name) for name in names}

    def train_states(self, values: Tensor, items: Tensor, whole: bool = False) -> SessionStates:
        """States with targets, from vectors [B, L, D] and item ids [B, L].

        Parameters
        ----------
        values : Tensor [B, L, D]
            The events.
        items : Tensor [B, L], int64
            Their item ids.
        whole : bool
            Keep every position, for tasks that read the whole session beside the next item.
        """
        raise NotImplementedError

    def inference_states(self, values: Tensor, items: Tensor) -> SessionStates:
        """States that are read once a session."""
        raise NotImplementedError


def check_share(name: str, value: float, below_one: bool = False) -> float:
    """A probability, or a ValueError that names the argument."""
    if not 0 <= value <= 1 or (below_one and value == 1):
        raise ValueError(f"{name} must be between 0 and 1{' (exclusive)' if below_one else ''}, not {value}")
    return value


def pick_one(candidates: Tensor) -> Tensor:
    """One random True of each row [B, L] that has any, as a mask."""
    order = torch.rand(candidates.shape, device=candidates.device).masked_fill(~candidates, -1)
    position = torch.arange(candidates.shape[1], device=candidates.device)
    return (position == order.argmax(1, keepdim=True)) & candidates


def last_event(items: Tensor, reserved: int) -> Tensor:
    """The last event of each session [B, L] as a mask: none where the session has one event or its item is reserved."""
    n = lengths(items)
    position = torch.arange(items.shape[1], device=items.device)
    return (position == (n - 1)[:, None]) & (items >= reserved) & (n >= 2)[:, None]


def hide(items: Tensor, reserved: int, hidden: Tensor, last_item_probability: float) -> Tensor:
    """Mend a random choice of events to hide, so that every session has something to learn from.

    Parameters
    ----------
    items : Tensor [B, L], int64
        The sessions.
    reserved : int
        Ids below it are no candidates.
    hidden : Tensor [B, L], bool
        What chance chose.
    last_item_probability : float
        In this share of the sessions the last event alone is hidden instead.

    Returns
    -------
    Tensor [B, L], bool
        At least one candidate a session, never all of its events; nothing of a session of one event.
    """
    candidates = items >= reserved
    hidden = (hidden | pick_one(candidates)) & candidates
    full = hidden.sum(1) == lengths(items)
    hidden = hidden & ~(pick_one(candidates) & full[:, None])
    if last_item_probability:
        last = last_event(items, reserved)
        only = last.any(1) & (torch.rand(len(items), device=items.device) < last_item_probability)
        hidden = torch.where(only[:, None], last, hidden)
    return hidden
