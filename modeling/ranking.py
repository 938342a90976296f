"""Which items are left to recommend, and the best of them: one code for evaluation, Python and the server.

These functions compile to TorchScript, so they take no defaults that it does not know.
"""

from typing import Optional  # TorchScript reads this spelling

import torch
from torch import Tensor

EXCLUDE = ("none", "last", "seen")


def strike(scores: Tensor, items: Tensor, rule: str) -> Tensor:
    """Items of the session itself get the score -inf.

    Parameters
    ----------
    scores : Tensor [B, C]
        By item id.
    items : Tensor [B, L], int64
        The sessions, right-padded with 0.
    rule : {"none", "last", "seen"}
        Strike nothing, the last event's item, or all items of the session.
    """
    if rule == "seen":
        return scores.scatter(1, items, float("-inf"))
    if rule == "last":
        last = ((items != 0).sum(1) - 1).clamp(min=0)
        return scores.scatter(1, items.gather(1, last.unsqueeze(1)), float("-inf"))
    return scores


def restrict(scores: Tensor, excluded: Optional[Tensor], candidates: Optional[Tensor]) -> Tensor:  # noqa: UP045
    """Items of a list get the score -inf, or all items but those of a list.

    Parameters
    ----------
    scores : Tensor [B, C]
        By item id.
    excluded, candidates : Tensor [M] or [B, M], int64, optional
        Item ids: one list for all sessions, or a row each, filled up with 0.

    Raises
    ------
    ValueError
        When a list has an id that is not in the catalogue, or rows for another number of sessions.
    """
    if candidates is not None:
        rows = rows_of(candidates, scores.shape[0], scores.shape[1])
        scores = scores + torch.full_like(scores, float("-inf")).scatter(1, rows, 0.0)
    if excluded is not None:
        scores = scores.scatter(1, rows_of(excluded, scores.shape[0], scores.shape[1]), float("-inf"))
    return scores


def rows_of(ids: Tensor, sessions: int, catalogue: int) -> Tensor:
    """Lists of item ids as one row a session [B, M], checked against the catalogue."""
    if ids.numel() > 0 and (int(ids.min()) < 0 or int(ids.max()) >= catalogue):
        raise ValueError("a list of items has an id that is not in the catalogue")
    if ids.dim() == 1:
        return ids.unsqueeze(0).expand(sessions, ids.shape[0])
    if ids.shape[0] != sessions:
        raise ValueError("a list of items must have one row, or a row for each session")
    return ids


def struck_ids(items: Tensor, rule: str, excluded: Optional[Tensor], catalogue: int) -> Tensor:  # noqa: UP045
    """What `strike` and `restrict` take away, as ids.

    Parameters
    ----------
    items : Tensor [B, L], int64
        The sessions, right-padded with 0.
    rule : {"none", "last", "seen"}
        See `strike`.
    excluded : Tensor [M] or [B, M], int64, optional
        See `restrict`.
    catalogue : int
        Ids are below it.

    Returns
    -------
    Tensor [B, M], int64
        A row a session, filled up with 0. M may be 0.
    """
    own = items
    if rule == "last":
        last = ((items != 0).sum(1) - 1).clamp(min=0)
        own = items.gather(1, last.unsqueeze(1))
    elif rule != "seen":
        own = items[:, :0]
    if excluded is None:
        return own
    return torch.cat([own, rows_of(excluded, items.shape[0], catalogue)], 1)


def best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` best items of each row.

    Returns
    -------
    Tensor [B, k]
        Scores, descending; -inf where nothing is left to recommend.
    Tensor [B, k], int64
        Item ids; 0 where nothing is left.

    Raises
    ------
    ValueError
        When `k` is below 1.
    """
    if k < 1:
        raise ValueError("k must be at least 1")
    top, ids = torch.topk(scores, min(k, scores.shape[1]), dim=1)
    ids = ids.masked_fill(top == float("-inf"), 0)
    if top.shape[1] < k:
        top = torch.nn.functional.pad(top, [0, k - top.shape[1]], value=float("-inf"))
        ids = torch.nn.functional.pad(ids, [0, k - ids.shape[1]])
    return top, ids


def best_by_blocks(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What `best` answers, sooner where there are many items.

    Only the k blocks with the largest maxima are looked into. That is exact: these maxima are k scores, so whatever
    is below the least of them is not among the k best, and no other block has anything above it.
    """
    size = 256  # TorchScript reads no constants of a module
    blocks = scores.shape[1] // size
    if k < 1 or blocks < 4 * k + 64:
        return best(scores, k)
    whole = scores.narrow(1, 0, blocks * size).unflatten(1, [blocks, size])
    chosen = torch.topk(whole.amax(2), k, dim=1, sorted=False)[1]
    ids = (chosen.unsqueeze(2) * size + torch.arange(size, device=scores.device)).flatten(1)
    if blocks * size < scores.shape[1]:
        rest = torch.arange(blocks * size, scores.shape[1], device=scores.device)
        ids = torch.cat([ids, rest.expand(ids.shape[0], -1)], 1)
    top, where = best(scores.gather(1, ids), k)
    return top, ids.gather(1, where).masked_fill(top == float("-inf"), 0)
