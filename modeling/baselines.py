"""What a table of counts recommends: the least that a model must beat.

Each is fitted on the training window and scores the catalogue for padded sessions, as a model does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.data import Sessions
from modeling.sequence import lengths


class Popularity:
    """The items that occur most often in training, the same for every session.

    Parameters
    ----------
    sessions : Sessions
        The training window.
    item : str
        The item column.
    cardinality, reserved : int
        Size of the catalogue with reserved ids, and number of those.
    """

    def __init__(self, sessions: Sessions, item: str, cardinality: int, reserved: int) -> None:
        self.reserved = reserved
        self.counts = torch.bincount(sessions.values[item], minlength=cardinality).double()

    def scores(self, items: Tensor) -> Tensor:
        """Scores [B, cardinality] for sessions [B, L]; -inf for reserved ids."""
        scores = self.counts.repeat(len(items), 1)
        scores[:, : self.reserved] = float("-inf")
        return scores


class Cooccurrence(Popularity):
    """The items that most often came directly after the session's last one.

    Equal counts are ordered by popularity, which also fills up where the last item has no successors
    or is unknown.
    """

    def __init__(self, sessions: Sessions, item: str, cardinality: int, reserved: int) -> None:
        super().__init__(sessions, item, cardinality, reserved)
        flat = sessions.values[item]
        starts = torch.zeros(len(flat) + 1, dtype=torch.bool)
        starts[sessions.offsets] = True
        before, after = flat[:-1], flat[1:]
        pairs = ~starts[1 : len(flat)] & (before >= reserved) & (after >= reserved)
        keys, counts = torch.unique(before[pairs] * cardinality + after[pairs], return_counts=True)
        self.after = keys % cardinality
        self.pair_counts = counts.double()
        rows = torch.div(keys, cardinality, rounding_mode="floor")
        self.first = torch.searchsorted(rows, torch.arange(cardinality + 1))

    def scores(self, items: Tensor) -> Tensor:
        """Scores [B, cardinality] for sessions [B, L]; -inf for reserved ids."""
        # Less than one, so that it only orders what the counts leave equal.
        scores = super().scores(items) / (self.counts.max() + 1)
        last = items.gather(1, (lengths(items) - 1).clamp(min=0)[:, None])[:, 0]
        count = self.first[last + 1] - self.first[last]
        row = torch.repeat_interleave(torch.arange(len(last)), count)
        index = torch.arange(int(count.sum())) - torch.repeat_interleave(count.cumsum(0) - count, count)
        index += torch.repeat_interleave(self.first[last], count)
        scores[row, self.after[index]] += self.pair_counts[index]
        return scores
