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
    pairs : int
        Pairs that have a weight.
    width : int
        The most pairs of one item.
    depth : int
        Events of a session that count, from the last one on.
    decay : float
        Weight of an event beside the one after it.

    Attributes
    ----------
    offsets : Tensor [catalogue + 1], int64
        Item i owns the pairs from ``offsets[i]`` to ``offsets[i + 1]``.
    items : Tensor [pairs + 1], int32
        The second items. The last one is 0, for places that have no pair.
    weights : Tensor [pairs + 1], float32
        Above 0, but for the last one.
    """

    offsets: Tensor
    items: Tensor
    weights: Tensor

    def __init__(self, catalogue: int, pairs: int, width: int, depth: int, decay: float) -> None:
        super().__init__()
        self.catalogue, self.pairs, self.width, self.depth, self.decay = catalogue, pairs, width, depth, decay
        self.register_buffer("offsets", torch.zeros(catalogue + 1, dtype=torch.long))
        self.register_buffer("items", torch.zeros(pairs + 1, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(pairs + 1))

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in ("catalogue", "pairs", "width", "depth", "decay")}

    @classmethod
    def from_pairs(
        cls, rows: Tensor, columns: Tensor, weights: Tensor, catalogue: int, depth: int, decay: float
    ) -> Any:
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
        made = cls(catalogue, len(rows), int(counts.max()), depth, decay)
        made.offsets[1:] = counts.cumsum(0)
        made.items[:-1] = columns.to(torch.int32)
        made.weights[:-1] = weights
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
        back = torch.arange(self.depth, device=items.device)
        place = (items != 0).sum(1).unsqueeze(1) - 1 - back
        last = items.gather(1, place.clamp(min=0)).masked_fill(place < 0, 0)
        begin = self.offsets[last].unsqueeze(2)
        index = begin + torch.arange(self.width, device=items.device)
        index = index.masked_fill(index >= self.offsets[last + 1].unsqueeze(2), self.pairs)
        shares = self.weights[index] * torch.pow(self.decay, back).unsqueeze(1)
        return self.items[index].long().flatten(1), shares.flatten(1)

    def added(self, scores: Tensor, items: Tensor) -> Tensor:
        """Scores [B, catalogue] with the evidence of the sessions [B, L] added."""
        ids, shares = self.forward(items)
        return scores.scatter_add(1, ids, shares.to(scores.dtype))


def merged(ids: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `ItemEvidence` says, with the shares of each item as one.

    Returns
    -------
    Tensor [B, M], int64
        The ids in ascending order; those that came several times are still there as often.
    Tensor [B, M], float32
        The sum of the item's shares, at each of its places.
    Tensor [B, M], bool
        The first place of each item.
    """
    ordered, order = ids.sort(1)
    first = torch.nn.functional.pad(ordered[:, 1:] != ordered[:, :-1], [1, 0], value=True)
    group = first.long().cumsum(1) - 1
    total = torch.zeros_like(shares).scatter_add(1, group, shares.gather(1, order))
    return ordered, total.gather(1, group), first
