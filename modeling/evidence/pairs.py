"""What the training window says of pairs of items: the counts that evidence is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp  # type: ignore[import-untyped]
import torch
from torch import Tensor

from modeling.baselines import ItemKNN, SequentialRules, TrainingWindow

# Pairs kept of an item, before their weights are known.
_KEPT = 128
_STEPS = 19
# Successions that an item is given without having been seen: what few sessions say counts less.
_PRIOR = 5.0


@dataclass(frozen=True)
class Pairs:
    """Pairs of items, sorted by the first.

    Attributes
    ----------
    first, second : Tensor [P], int64
        The items.
    kinds : Tensor [P, 2], float32
        How much the second follows the first, as a share of all that followed it, near events counting more
        (`SequentialRules`); and how alike their sessions are (`ItemKNN`). At least one of both is above 0.
    """

    first: Tensor
    second: Tensor
    kinds: Tensor


def count_pairs(window: TrainingWindow) -> Pairs:
    """Count the pairs of a training window; of each item those that tell the most are kept."""
    rules = SequentialRules(window, steps=_STEPS).rules
    follows = sp.csr_matrix(sp.diags_array(1 / (np.asarray(rules.sum(1)).ravel() + _PRIOR)) @ rules)
    alike = ItemKNN(window).rules
    # Both beside the largest of the item's own, so that neither kind crowds the other out.
    both = sp.csr_matrix(_to_one(follows) + _to_one(alike))
    rows = np.repeat(np.arange(both.shape[0]), np.diff(both.indptr))
    # The item itself cannot follow where repeats are collapsed; elsewhere the model knows repeats well enough.
    known = (both.indices >= window.reserved) & (rows >= window.reserved) & (both.indices != rows) & (both.data > 0)
    rows, columns, importance = rows[known], both.indices[known], both.data[known]
    order = np.lexsort((columns, -importance, rows))
    begin = np.searchsorted(rows[order], np.arange(both.shape[0]))
    kept = order[np.arange(len(order)) - begin[rows[order]] < _KEPT]
    kept = kept[np.lexsort((columns[kept], rows[kept]))]
    rows, columns = rows[kept], columns[kept].astype(np.int64)
    # Asked for no pairs at all, scipy answers with a matrix.
    kinds = np.zeros((len(rows), 2), np.float32)
    if len(rows):
        kinds[:] = np.stack([np.asarray(kind[rows, columns]).ravel() for kind in (follows, alike)], 1)
    return Pairs(torch.from_numpy(rows.astype(np.int64)), torch.from_numpy(columns), torch.from_numpy(kinds))


def _to_one(table: sp.csr_matrix) -> sp.csr_matrix:
    largest = table.max(1).toarray().ravel()
    return sp.diags_array(1 / np.where(largest > 0, largest, 1)) @ table
