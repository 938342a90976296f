"""Item-to-item evidence as a part of the model: a sparse matrix of learned weights, added to the scores.

For a session that ends in the items i1 (last), i2, ... the score of the item j becomes::

    score(j) + sum over k from 1 to depth of decay ** (k - 1) * weight(ik, j)

All weights are positive, so an item without a weight can only fall behind others: the best items are among the best
without evidence and those that have some. A server uses that (`modeling.export.rankers`).
"""

from typing import Any

import torch
from torch import Tensor, nn

from modeling.serialization import part


@part
class ItemEvidence(nn.Module):
    """Weights of pairs of items, by the first item.

    Parameters
    ----------
    catalogue : int
        Item ids are below it.
    width : int
        The most pairs of one item.
    depth : int
        Events of a session that count, from the last one on.
    decay : float
        Weight of an event beside the one after it.

    Attributes
    ----------
    items : Tensor [catalogue, width], int32
        The second items of each item's pairs, filled up with 0. Rows of one width cost memory, and a server half the
        time of rows that end where they end.
    weights : Tensor [catalogue, width], float32
        Above 0 where there is a pair.
    """

    items: Tensor
    weights: Tensor
    back: Tensor
    shares: Tensor

    def __init__(self, catalogue: int, width: int, depth: int, decay: float) -> None:
        super().__init__()
        self.catalogue, self.width, self.depth, self.decay = catalogue, width, depth, decay
        self.register_buffer("items", torch.zeros(catalogue, width, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(catalogue, width))
        back = torch.arange(depth)
        self.register_buffer("back", back + 1, persistent=False)
        self.register_buffer("shares", torch.pow(decay, back).unsqueeze(1), persistent=False)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in ("catalogue", "width", "depth", "decay")}

    @classmethod
    def from_pairs(
        cls, rows: Tensor, columns: Tensor, weights: Tensor, catalogue: int, depth: int, decay: float
    ) -> "ItemEvidence":
        """From weights of pairs.

        Parameters
        ----------
        rows, columns : Tensor [pairs], int64
            The first and the second items, sorted by the first.
        weights : Tensor [pairs], float32
            Above 0.
        catalogue, depth, decay
            As in the constructor.
        """
        counts = torch.bincount(rows, minlength=catalogue)
        made = cls(catalogue, int(counts.max()), depth, decay)
        place = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
        made.items[rows, place] = columns.to(torch.int32)
        made.weights[rows, place] = weights
        return made

    def forward(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """What the sessions' last items say.

        Parameters
        ----------
        items : Tensor [B, L], int64
            The sessions, right-padded with 0, L at least 1.

        Returns
        -------
        Tensor [B, depth * width], int64, and Tensor [B, depth * width], float32
            Items, and what is added to their scores. An item may come several times, each with a share; places that
            are left are 0 and add 0.
        """
        last = recent(items, self.back)
        shares = torch.nn.functional.embedding(last, self.weights) * self.shares
        return torch.nn.functional.embedding(last, self.items).flatten(1).long(), shares.flatten(1)

    def added(self, scores: Tensor, items: Tensor) -> Tensor:
        """Scores [B, catalogue] with the evidence of the sessions [B, L] added."""
        ids, shares = self.forward(items)
        return scores.scatter_add(1, ids, shares.to(scores.dtype))


def recent(items: Tensor, back: Tensor) -> Tensor:
    """The items that stand so many places from the sessions' ends, 1 for the last [B, len(back)]; 0 where none does."""
    place = (items != 0).sum(1, keepdim=True) - back
    return items.gather(1, place.clamp(min=0)).masked_fill(place < 0, 0)


def merged(ids: Tensor, shares: Tensor, fill: int) -> tuple[Tensor, Tensor]:
    """What `ItemEvidence` says, each item once.

    Returns
    -------
    Tensor [B, U], int64
        Each row's items in ascending order, and `fill` behind them; U is the most that a row has.
    Tensor [B, U], float32
        The sums of their shares.
    """
    ordered, order = ids.sort(1)
    group = torch.nn.functional.pad(ordered[:, 1:] != ordered[:, :-1], [1, 0]).cumsum(1)
    width = int(group[:, -1].max()) + 1
    total = shares.new_zeros(ids.shape[0], width).scatter_add(1, group, shares.gather(1, order))
    return ordered.new_full([ids.shape[0], width], fill).scatter(1, group, ordered), total
