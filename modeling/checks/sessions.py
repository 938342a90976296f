"""Small random sessions, and how their scores are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modeling.checks.result import Failed
from modeling.schema import Feature
from modeling.synthetic import random_columns

Batch = dict[str, Tensor]

# The most events of a session; a context has one less.
LIMIT = 8
LENGTHS = (7, 1, 3, 5, 2)

FEATURES = (
    Feature("item", "categorical", 30, 3, True),
    Feature("shelf", "categorical", 7, 3),
    Feature("price", "continuous"),
)


def batch_of(features: Sequence[Feature], lengths: Sequence[int], width: int | None = None, seed: int = 3) -> Batch:
    """Random sessions.

    Parameters
    ----------
    features : sequence of Feature
        The columns.
    lengths : sequence of int
        Events of each session.
    width : int, optional
        Columns, padding included; the longest session by default.
    seed : int
        Of everything random.

    Returns
    -------
    dict of Tensor [B, width]
        int64 codes and float32 numbers, right-padded with 0.
    """
    columns = random_columns(features, lengths, seed)
    more = (width or max(lengths)) - max(lengths)
    return {name: torch.nn.functional.pad(column, [0, more]) for name, column in columns.items()}


def altered(features: Sequence[Feature], batch: Batch, row: int, first: int, last: int | None = None) -> Batch:
    """Other events, in all their features, at the places ``first..last`` of one session (`last` excluded)."""
    changed = {name: values.clone() for name, values in batch.items()}
    place = slice(first, first + 1 if last is None else last)
    for feature in features:
        old = changed[feature.name][row, place]
        if feature.kind == "continuous":
            new = old + 1.5
        else:
            new = feature.reserved + (old - feature.reserved + 1) % (feature.cardinality - feature.reserved)
        changed[feature.name][row, place] = new
    return changed


def session(batch: Batch, row: int, start: int, stop: int) -> Batch:
    """One session alone, without padding: its events ``start..stop``."""
    return {name: values[row : row + 1, start:stop] for name, values in batch.items()}


def scores(model: Any, batch: Batch, testing: bool = False) -> Tensor:
    """The model's scores of the items that can be recommended [B, items].

    Raises
    ------
    Failed
        When one is not finite.
    """
    with torch.no_grad():
        result = model(batch, testing=testing)
    found: Tensor = (result["predictions"] if testing else result)[:, model.inputs.item.reserved :]
    if not torch.isfinite(found).all():
        raise Failed("the scores are not finite")
    return found


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of how far the scores of a session lie apart."""
    spread = float((a.amax(-1) - a.amin(-1)).max())
    if not spread:
        raise Failed("all items have the same score")
    return float((a - b).abs().max()) / spread
