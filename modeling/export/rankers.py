"""From what a model says of a session to its best items: the last step of a request, as TorchScript.

A ranker is called as ``ranker(answers, k, struck, candidates, more)``, with `struck` and `candidates` as ids [B, M],
filled up with 0, and returns scores [B, k] and ids [B, k] as `modeling.ranking.best` does. `more` is what
`modeling.evidence.module.ItemEvidence` says: ids [B, M] and what is added to their scores, nothing below 0.
"""

from typing import Optional  # TorchScript reads this spelling

import torch
from torch import Tensor, nn

from modeling.evidence.module import merged
from modeling.export.bounds import BLOCK, BlockBounds, block_bounds
from modeling.ranking import best, best_by_blocks, restrict, rows_of

# Items from which bounds are worth having.
_MANY = 50_000


def _place(ordered: Tensor, ids: Tensor) -> Tensor:
    """Where each id would stand among ascending ones, in each row."""
    return torch.searchsorted(ordered, ids).clamp(max=ordered.shape[1] - 1)


def _among(ids: Tensor, others: Tensor) -> Tensor:
    """Which of the ids [B, M] are among the row's others [B, N] [B, M]."""
    if ids.shape[1] < 32 or others.shape[1] < 32:  # comparing all is over before sorting has begun
        return (ids.unsqueeze(2) == others.unsqueeze(1)).any(2)
    ordered = others.sort(1)[0]
    return ordered.gather(1, _place(ordered, ids)) == ids


class ScoreRanker(nn.Module):
    """Ranks scores that are there already: for heads that are more than one product of vectors."""

    def forward(
        self,
        answers: Tensor,
        k: int,
        struck: Tensor,
        candidates: Optional[Tensor],  # noqa: UP045
        more: Optional[tuple[Tensor, Tensor]] = None,  # noqa: UP045
    ) -> tuple[Tensor, Tensor]:
        """Rank the scores `answers` [B, C]."""
        if more is not None:
            answers = answers.scatter_add(1, more[0], more[1].to(answers.dtype))
        return best_by_blocks(restrict(answers, struck, candidates), k)


class VectorRanker(nn.Module):
    """Ranks items by the product of their vectors with the session's.

    Parameters
    ----------
    vectors : Tensor [C, D]
        The items.
    bias : Tensor [C], optional
        What is added to their scores.
    reserved : int
        Ids below it are not recommended.
    """

    vectors: Tensor
    bias: Tensor | None

    def __init__(self, vectors: Tensor, bias: Tensor | None, reserved: int) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors.detach())
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.reserved = reserved

    def forward(
        self,
        answers: Tensor,
        k: int,
        struck: Tensor,
        candidates: Optional[Tensor],  # noqa: UP045
        more: Optional[tuple[Tensor, Tensor]] = None,  # noqa: UP045
    ) -> tuple[Tensor, Tensor]:
        """Rank by the sessions' vectors `answers` [B, D]."""
        return self.plain(answers, k, struck, candidates, more)

    def plain(
        self,
        answers: Tensor,
        k: int,
        struck: Tensor,
        candidates: Optional[Tensor],  # noqa: UP045
        more: Optional[tuple[Tensor, Tensor]] = None,  # noqa: UP045
    ) -> tuple[Tensor, Tensor]:
        """Rank by scores of the whole catalogue, or of candidates if they are few."""
        if candidates is not None:
            ids = rows_of(candidates, answers.shape[0], self.vectors.shape[0])
            # Vectors from all over the table, copied for each session, against one pass over the table for all.
            if ids.shape[1] * 8 <= self.vectors.shape[0] and ids.numel() * answers.shape[1] <= 1 << 24:
                # A column of padding more, so that there is something to choose from; and each item once.
                ids = torch.nn.functional.pad(ids, [1, 0]).sort(1)[0]
                again = torch.nn.functional.pad(ids[:, 1:] == ids[:, :-1], [1, 0])
                return self.among(answers, k, struck, ids.masked_fill(again, 0), more)
        scores = self.scores(answers)
        if more is not None:
            scores.scatter_add_(1, more[0], more[1].to(scores.dtype))
        if candidates is not None:
            return best_by_blocks(restrict(scores, struck, candidates), k)
        if struck.shape[1] > 0:
            scores.scatter_(1, struck, float("-inf"))
        return best_by_blocks(scores, k)

    def scores(self, answers: Tensor) -> Tensor:
        """Scores of all items [B, C]."""
        scores = torch.nn.functional.linear(answers, self.vectors, self.bias)
        scores.narrow(1, 0, self.reserved).fill_(float("-inf"))
        return scores

    def of(self, answers: Tensor, ids: Tensor) -> Tensor:
        """Scores of some items for each session [B, M]."""
        # A row times a matrix: for several sessions a matrix times a column takes nine times as long.
        some = torch.nn.functional.embedding(ids, self.vectors).transpose(1, 2)
        scores = torch.bmm(answers.unsqueeze(1), some).squeeze(1)
        bias = self.bias
        return scores if bias is None else scores + bias[ids]

    def among(
        self,
        answers: Tensor,
        k: int,
        struck: Tensor,
        ids: Tensor,
        more: Optional[tuple[Tensor, Tensor]] = None,  # noqa: UP045
    ) -> tuple[Tensor, Tensor]:
        """Rank some items for each session [B, M], M at least 1, each once but 0; nothing else is computed."""
        scores = self.of(answers, ids)
        if more is not None:
            own, total = merged(more[0], more[1].to(scores.dtype), self.vectors.shape[0])
            at = _place(own, ids)
            scores = scores + total.gather(1, at).masked_fill(own.gather(1, at) != ids, 0.0)
        void = (ids < self.reserved) | _among(ids, struck)
        top, where = best(scores.masked_fill(void, float("-inf")), k)
        return top, ids.gather(1, where).masked_fill(top == float("-inf"), 0)


class BoundedRanker(VectorRanker):
    """Scores only blocks of items that can hold an answer; the answers are those of `VectorRanker`.

    Parameters
    ----------
    vectors, bias, reserved
        See `VectorRanker`.
    bounds : BlockBounds
        Of these vectors and this bias.
    """

    def __init__(self, vectors: Tensor, bias: Tensor | None, reserved: int, bounds: BlockBounds) -> None:
        super().__init__(vectors, bias, reserved)
        self.bounds = bounds
        # Blocks that cost about as much to pick as a pass over the whole table.
        self.budget = -(-vectors.shape[0] // BLOCK) // 16
        self.block = BLOCK

    def forward(
        self,
        answers: Tensor,
        k: int,
        struck: Tensor,
        candidates: Optional[Tensor],  # noqa: UP045
        more: Optional[tuple[Tensor, Tensor]] = None,  # noqa: UP045
    ) -> tuple[Tensor, Tensor]:
        """Rank by the sessions' vectors `answers` [B, D]."""
        few = k >= 1 and k * 4 <= self.budget and candidates is None
        if not few or answers.is_cuda or answers.dtype != torch.float32 or not self.bounds.ready():
            return self.plain(answers, k, struck, candidates, more)
        tops: list[Tensor] = []
        found: list[Tensor] = []
        # So many at once that their bounds stay in the cache.
        for begin in range(0, answers.shape[0], 32):
            some, others = answers[begin : begin + 32], struck[begin : begin + 32]
            top, ids = self.bounded(some, k, others)
            tops.append(top)
            found.append(ids)
        top, ids = (tops[0], found[0]) if len(tops) == 1 else (torch.cat(tops), torch.cat(found))
        return (top, ids) if more is None else self.joined(answers, k, struck, top, ids, more)

    def joined(
        self, answers: Tensor, k: int, struck: Tensor, top: Tensor, ids: Tensor, more: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The best of the `k` best without `more` and of the items that `more` adds to: there are no others."""
        own, total = merged(more[0], more[1], 0)
        void = (own < self.reserved) | _among(own, struck)
        scores = (self.of(answers, own) + total).masked_fill(void, float("-inf"))
        top = top.masked_fill(_among(ids, own), float("-inf"))
        top, where = best(torch.cat([top, scores], 1), k)
        return top, torch.cat([ids, own], 1).gather(1, where).masked_fill(top == float("-inf"), 0)

    def bounded(self, answers: Tensor, k: int, struck: Tensor) -> tuple[Tensor, Tensor]:
        """Rank by blocks that can hold an answer, or plainly where they are too many."""
        upper, lower = self.bounds(answers)
        # A block whose best item may be struck warrants nothing.
        lower.narrow(1, 0, (self.reserved + self.block - 1) // self.block).fill_(float("-inf"))
        if struck.shape[1] > 0:
            lower.scatter_(1, struck.div(self.block, rounding_mode="floor"), float("-inf"))
        # k blocks hold an item each that is at least as good as this: no block below it holds an answer.
        least = torch.topk(lower, k, dim=1, sorted=False)[0].amin(1, keepdim=True)
        # Written so that NaN, a bound that is not known, counts as open.
        is_open = (upper < least).logical_not_()
        count = is_open.sum(1)
        counts: list[int] = count.tolist()
        hard = (count > self.budget).nonzero().squeeze(1)
        hard_tops, hard_ids = answers, struck
        if hard.shape[0] > 0:
            hard_tops, hard_ids = self.plain(answers[hard], k, struck[hard], None)
        if hard.shape[0] == answers.shape[0]:
            return hard_tops, hard_ids
        tops: list[Tensor] = []
        found: list[Tensor] = []
        past = 0
        # One by one: a row's vectors stay in the cache, and rows differ in how many they need.
        for row in range(len(counts)):
            top, ids = hard_tops[past : past + 1], hard_ids[past : past + 1]
            if counts[row] > self.budget:
                past += 1
            else:
                inside = (is_open[row].nonzero() * self.block + torch.arange(self.block)).view(1, -1)
                # The last block may reach behind the last item.
                inside = inside.masked_fill(inside >= self.vectors.shape[0], 0)
                top, ids = self.among(answers[row : row + 1], k, struck[row : row + 1], inside)
            tops.append(top)
            found.append(ids)
        return torch.cat(tops), torch.cat(found)


def served(ranker: nn.Module) -> nn.Module:
    """The ranker that answers the same soonest, for what is exported."""
    if not isinstance(ranker, VectorRanker) or ranker.vectors.dtype != torch.float32:
        return ranker
    # Few items are scored sooner than bounded. Without VNNI oneDNN may multiply integers one by one.
    if ranker.vectors.shape[0] < _MANY or not torch.cpu.get_capabilities().get("avx512_vnni"):
        return ranker
    bounds = block_bounds(ranker.vectors, ranker.bias)
    return BoundedRanker(ranker.vectors, ranker.bias, ranker.reserved, bounds)
