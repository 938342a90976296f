"""Tables of rules "after this item, that one", applied to the last item of a session."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp  # type: ignore[import-untyped]
import torch
from torch import Tensor

from modeling.baselines.popularity import Popularity, last_items
from modeling.baselines.window import TrainingWindow

# Products of sparse matrices are made for so many pairs of an item and a session at a time.
_PAIRS_AT_ONCE = 1 << 22


class RuleTable(Popularity):
    """Base: subclasses learn a weight for each pair of items; popularity orders what the weights leave equal.

    Attributes
    ----------
    rules : csr_matrix [cardinality, cardinality], float64
        From the last item (row) to the recommended one.
    """

    rules: sp.csr_matrix

    def scores(self, items: Tensor) -> Tensor:
        """Scores [B, cardinality] for sessions [B, L]; -inf for reserved ids."""
        found = torch.from_numpy(self.rules[last_items(items).numpy()].toarray())
        return self._struck(found + self._least() * self._fill())

    def _least(self) -> float:
        """Less than any difference between two weights that matters."""
        return 1e-9 * float(self.rules.data.max()) if self.rules.nnz else 1.0

    def _table(self, rows: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> sp.csr_matrix:
        """Weights of equal pairs are added up."""
        shape = (self.cardinality, self.cardinality)
        return sp.coo_matrix((weights, (rows, columns)), shape=shape).tocsr()


class Cooccurrence(RuleTable):
    """The items that most often came directly after the session's last one.

    Equal counts are ordered by popularity, which also fills up where the last item has no successors
    or is unknown.
    """

    def __init__(self, window: TrainingWindow) -> None:
        super().__init__(window)
        ((before, after),) = _pairs(window, 1)
        self.rules = self._table(before, after, np.ones(len(before)))

    @property
    def pair_counts(self) -> Tensor:
        """How often each pair of neighbours occurred [pairs], by the first item and then the second."""
        return torch.from_numpy(self.rules.data)

    def _least(self) -> float:
        return 1.0  # counts are whole numbers


class MarkovChain(Cooccurrence):
    """The probability of the next item given the last one, estimated from counts.

    With n(i, j) successions, n(i) = sum of n(i, .) and the popularity p(j): ``(n(i, j) + a p(j)) / (n(i) + a)``, a
    Dirichlet prior around popularity of the strength a. Up to a = 1 the order is nearly that of `Cooccurrence`.

    Parameters
    ----------
    window : TrainingWindow
        What is counted.
    prior : float
        a.
    """

    def __init__(
        self,
        window: TrainingWindow,
        prior: float = 10.0,
    ) -> None:
        super().__init__(window)
        self.prior = prior
        self.totals = torch.from_numpy(np.asarray(self.rules.sum(1)).ravel())
        known = self.counts.clone()
        known[: self.reserved] = 0
        self.popularity = known / known.sum().clamp(min=1)

    def scores(self, items: Tensor) -> Tensor:
        """Probabilities [B, cardinality] for sessions [B, L]; -inf for reserved ids."""
        last = last_items(items)
        found = torch.from_numpy(self.rules[last.numpy()].toarray())
        return self._struck((found + self.prior * self.popularity) / (self.totals[last] + self.prior)[:, None])


class SequentialRules(RuleTable):
    """Items that came some steps after the session's last one, each time counted as 1 / steps.

    The method SR of Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", 2018.

    Parameters
    ----------
    window : TrainingWindow
        What is counted.
    steps : int
        The largest distance.
    """

    def __init__(
        self,
        window: TrainingWindow,
        steps: int = 10,
    ) -> None:
        super().__init__(window)
        self.rules = sp.csr_matrix((self.cardinality, self.cardinality))
        for distance, (before, after) in enumerate(_pairs(window, steps), 1):
            self.rules = self.rules + self._table(before, after, np.full(len(before), 1 / distance))


class ItemKNN(RuleTable):
    """Items of the same sessions as the last item: cosine over sessions, damped where items are rare.

    ``n(i, j) / sqrt((n(i) + d) (n(j) + d))`` with the number n of sessions that have an item, or both; the nearest
    are kept. As the baseline of Hidasi et al., "Session-based recommendations with recurrent neural networks", 2016.

    Parameters
    ----------
    window : TrainingWindow
        What is counted.
    neighbours : int
        Items kept of each item.
    damping : float
        d.
    """

    def __init__(
        self,
        window: TrainingWindow,
        neighbours: int = 100,
        damping: float = 20.0,
    ) -> None:
        super().__init__(window)
        flat, owner = _events(window)
        known = flat >= self.reserved
        shape = (self.cardinality, len(window.sessions))
        within = sp.coo_matrix((np.ones(known.sum()), (flat[known], owner[known])), shape=shape).tocsr()
        within.data[:] = 1  # once a session, however often
        norm = sp.diags_array(1 / np.sqrt(np.maximum(np.diff(within.indptr) + damping, 1)))
        blocks, size = [], max(1, _PAIRS_AT_ONCE // self.cardinality)
        for begin in range(0, self.cardinality, size):
            block = sp.csr_matrix(within[begin : begin + size] @ within.T)
            rows, columns = block.nonzero()
            block[rows[rows + begin == columns], columns[rows + begin == columns]] = 0
            block.eliminate_zeros()
            blocks.append(_largest(sp.csr_matrix(block @ norm), neighbours))
        self.rules = sp.csr_matrix(norm @ sp.vstack(blocks))


def _largest(block: sp.csr_matrix, count: int) -> sp.csr_matrix:
    """The largest values of each row; of equal ones those of the lower columns."""
    rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
    order = np.lexsort((block.indices, -block.data, rows))
    kept = order[np.arange(len(order)) - block.indptr[rows] < count]
    return sp.coo_matrix((block.data[kept], (rows[kept], block.indices[kept])), shape=block.shape).tocsr()


def _events(window: TrainingWindow) -> tuple[np.ndarray, np.ndarray]:
    """The item and the session of every event."""
    sessions = window.sessions
    return sessions.values[window.item].numpy(), np.repeat(np.arange(len(sessions)), sessions.lengths.numpy())


def _pairs(window: TrainingWindow, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each distance from 1 to `steps`: the known items that far apart in a session, the earlier and the later."""
    flat, owner = _events(window)
    reserved = window.reserved
    for distance in range(1, steps + 1):
        before, after = flat[:-distance], flat[distance:]
        valid = (owner[:-distance] == owner[distance:]) & (before >= reserved) & (after >= reserved)
        yield before[valid], after[valid]
