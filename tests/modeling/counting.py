"""Sessions small enough to count by hand."""

from collections.abc import Sequence

import torch

import modeling as tr


def sessions(*rows: Sequence[int]) -> tr.Sessions:
    """One session a row of item codes."""
    lengths = torch.tensor([0] + [len(row) for row in rows])
    return tr.Sessions({"item_id": torch.tensor([i for row in rows for i in row])}, lengths.cumsum(0))


TRAIN = sessions([3, 4, 5], [3, 4], [3, 5], [2, 4], [5, 3])


def order(scores: torch.Tensor) -> list[int]:
    """Codes by score, the best first."""
    return scores.argsort(descending=True, stable=True).tolist()
