"""Batches in other shapes: ragged columns padded, and every session cut before each of its events."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from modeling.sequence import lengths, of_events

VALUES, OFFSETS = "__values", "__offsets"


def to_width(column: Tensor, width: int) -> Tensor:
    """A column [B, L, ...] with zeros behind it, cut to [B, width, ...]; written so that a trace is right at any L."""
    zeros = column.new_zeros(column.shape[0], width, *column.shape[2:])
    return torch.cat([column, zeros], dim=1)[:, :width]


def pad_ragged(values: Tensor, offsets: Tensor) -> Tensor:
    """A ragged column as right-padded rows.

    Parameters
    ----------
    values : Tensor [E] or [E, V]
        Row behind row.
    offsets : Tensor [B + 1], int64
        Row b owns ``values[offsets[b]:offsets[b + 1]]``.

    Returns
    -------
    Tensor [B, L] or [B, L, V]
        L is the longest row; 0 is padding.

    Raises
    ------
    ValueError
        When the offsets do not begin at 0, fall, or do not end at the last value.
    """
    n = offsets.diff()
    if len(offsets) < 1 or int(offsets[0]) != 0 or int(offsets[-1]) != len(values) or bool((n < 0).any()):
        raise ValueError(f"offsets must rise from 0 to the number of values, {len(values)}")
    padded = values.new_zeros(len(n), int(n.max()) if len(n) else 0, *values.shape[1:])
    real = torch.arange(padded.shape[1], device=values.device) < n[:, None]
    padded[real] = values
    return padded


def pad_inputs(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pairs of ``name__values`` and ``name__offsets`` as padded columns ``name``; other columns as they are.

    Raises
    ------
    ValueError
        When one of a pair is missing.
    """
    padded: dict[str, Tensor] = {}
    for name, value in inputs.items():
        if name.endswith(VALUES):
            stem = name.removesuffix(VALUES)
            if stem + OFFSETS not in inputs:
                raise ValueError(f"the batch has {name!r} and no {stem + OFFSETS!r}")
            padded[stem] = pad_ragged(value, inputs[stem + OFFSETS])
        elif not name.endswith(OFFSETS):
            padded[name] = value
    return padded


def prefixes(
    columns: Mapping[str, Tensor], item: str, events: Collection[str] | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Each session once for every event but its first: the events before it, and its item.

    Parameters
    ----------
    columns : mapping of Tensor
        A batch; columns of the events are [B, L] or [B, L, V], those of the session [B] or [B, V].
    item : str
        The item column.
    events : collection of str, optional
        Names of the columns of events; as in `modeling.sequence.most_recent`.

    Returns
    -------
    dict of Tensor
        The cut sessions, P rows in the order of the sessions.
    Tensor [P], int64
        The items that follow.
    """
    items = columns[item]
    position = torch.arange(items.shape[1], device=items.device)
    row, cut = ((position < lengths(items)[:, None]) & (position > 0)).nonzero(as_tuple=True)
    hidden = position >= cut[:, None]
    found = {}
    for name, column in columns.items():
        taken = column[row]
        if of_events(name, column, items, events):
            taken = taken.masked_fill(hidden[(...,) + (None,) * (column.dim() - 2)], 0)
        found[name] = taken
    return found, items[row, cut]
