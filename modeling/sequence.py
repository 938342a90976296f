"""Sessions as right-padded tensors, and what flows from block to block.

Everything that decides which events a model may see is here, in three functions: `lengths`, `most_recent`
and `without_last`. Training, evaluation and serving all go through them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class SessionStates:
    """Vectors of the events of a batch, and where to read the answer.

    Attributes
    ----------
    values : Tensor [B, L, D], float
        A vector a position.
    attend : Tensor [B, L], bool
        Positions that others may look at; padding is False. The first position is always True, so that
        a session without events has a finite answer.
    read : Tensor [B], int64
        The position whose vector answers "what comes next".
    targets : Tensor [B, L], int64, optional
        Item id to predict at each position, 0 where there is none. Only in training.
    visible : Tensor [B, L, L], bool, optional
        Which position (last axis) each position (middle axis) may look at, beside `attend`. With it, no vector that
        comes out of the backbone depends on the vector that went in at its own position: XLNet's query stream.
    """

    values: Tensor
    attend: Tensor
    read: Tensor
    targets: Tensor | None = None
    visible: Tensor | None = None

    def with_values(self, values: Tensor) -> SessionStates:
        """The same positions with other vectors."""
        return replace(self, values=values)

    def answers(self) -> Tensor:
        """The vectors to score: [N, D] of the positions with a target, or [B, D] at `read`."""
        if self.targets is not None:
            return self.values[self.targets != 0]
        rows = torch.arange(self.values.shape[0], device=self.values.device)
        return self.values[rows, self.read]


def lengths(items: Tensor) -> Tensor:
    """Number of events of each session [B], from its padded item ids [B, L] (0 = padding, on the right)."""
    return (items != 0).sum(1)


def most_recent(
    inputs: dict[str, Tensor], item: str, limit: int, events: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Keep the last `limit` events of each session.

    Parameters
    ----------
    inputs : dict of Tensor [B, L], [B, L, width] or [B]
        Features, those of events right-padded with 0. Columns with a value a session stay as they are.
    item : str
        The name of the item id, which decides where padding begins.
    limit : int
        Columns of the result are at most this many.
    events : collection of str, optional
        Names of the columns with a value an event. Without it, those of the shape [B, L, ...] of the item ids: a
        session's vector [B, width] that happens to be as wide as the sessions are long would be taken for one.
    """
    length = inputs[item].shape[1]
    if length <= limit:
        return inputs
    n = lengths(inputs[item])
    first = (n - limit).clamp(min=0)
    index = first[:, None] + torch.arange(limit, device=n.device)
    return {
        name: _gather(value, index) if of_events(name, value, inputs[item], events) else value
        for name, value in inputs.items()
    }


def without_last(
    inputs: dict[str, Tensor], item: str, events: Collection[str] | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Remove the last event of each session, with all its features.

    Parameters
    ----------
    inputs, item, events
        As for `most_recent`. Columns with a value a session stay: they must not tell the last event.

    Returns
    -------
    dict of Tensor
        What is left; the removed event became padding.
    Tensor [B], int64
        The removed item ids; 0 for a session without events.
    """
    n = lengths(inputs[item])
    last = (n - 1).clamp(min=0)
    removed = torch.arange(inputs[item].shape[1], device=n.device) == last[:, None]
    target = inputs[item].gather(1, last[:, None])[:, 0]
    left = {
        name: value.masked_fill(removed[(..., *[None] * (value.dim() - 2))], 0)
        if of_events(name, value, inputs[item], events)
        else value
        for name, value in inputs.items()
    }
    return left, target


def of_events(name: str, value: Tensor, items: Tensor, events: Collection[str] | None) -> bool:
    """Whether a column has a value an event; see `most_recent`."""
    if events is not None:
        return name in events
    return value.dim() > 1 and value.shape[:2] == items.shape


def _gather(value: Tensor, index: Tensor) -> Tensor:
    """Events [B, L, ...] at the positions `index` [B, K]."""
    wide = index[(..., *[None] * (value.dim() - 2))].expand(*index.shape, *value.shape[2:])
    return value.gather(1, wide)
