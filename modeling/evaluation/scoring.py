"""Scoring held-out sessions: one pass that every figure comes from, for a model as for a baseline.

The last event of a session is removed with all its features; what is left goes through the same code as a request.
Ties are broken without favour (`modeling.ranking_metric.rank_of`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from modeling.data import Sessions
from modeling.evaluation.lists import Exposure
from modeling.ranking import strike
from modeling.ranking_metric import rank_of
from modeling.schema import Feature
from modeling.sequence import lengths, without_last

# Scores held at once, so memory does not grow with sessions x items.
_SCORES_AT_ONCE = 1 << 24
# Events of prefixes held at once: a session of n events has n (n - 1) / 2 of them.
_EVENTS_AT_ONCE = 1 << 20

Scorer = Callable[[dict[str, Tensor]], Tensor]


def ranks(
    scores: Scorer,
    sessions: Sessions,
    item: Feature,
    limit: int,
    exclude: str = "none",
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] | None = None,
    exposure: Exposure | None = None,
) -> Tensor:
    """Rank of each session's last item, given the events before it.

    Parameters
    ----------
    scores : callable
        Scores [B, cardinality] from columns [B, L]: a `Model` in evaluation mode, or a baseline.
    sessions : Sessions
        The held-out window.
    item : Feature
        The item column.
    limit : int
        Sessions are cut to their last `limit` events, the target among them.
    exclude : {"none", "last", "seen"}
        Items of the shortened session that are struck from the ranking.
    batch_size : int
        Sessions scored at once, fewer where the catalogue is large.
    device : str or torch.device
        Where to score.
    advance : callable, optional
        Told the number of sessions done.
    exposure : Exposure, optional
        Told the lists that the sessions with a rank are given.

    Returns
    -------
    Tensor [S], float32
        In the order of the sessions; infinite where the target is struck, NaN where it is a reserved id (an
        item that training never saw) or the session has fewer than two events.
    """
    found = torch.full((len(sessions),), float("nan"))
    batch_size = max(1, min(batch_size, _SCORES_AT_ONCE // item.cardinality))
    with torch.inference_mode():
        for chosen, batch in sessions.batches(batch_size, limit):
            batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            valid = lengths(batch[item.name]) >= 2
            past, target = without_last(batch, item.name, batch.keys() - sessions.whole)
            valid &= target >= item.reserved
            left = strike(scores(past), past[item.name], exclude)
            found[chosen] = rank_of(left, target).masked_fill(~valid, float("nan")).cpu()
            if exposure is not None:
                exposure.add(left[valid])
            if advance is not None:
                advance(len(chosen))
    return found


@dataclass(frozen=True)
class Targets:
    """What there is to predict in a window, a row a target.

    Attributes
    ----------
    session : Tensor [T], int64
        The session that each target is of.
    seen : Tensor [T], int64
        The events before it that a model sees: from 0 (nothing to predict from) to ``limit - 1``.
    item : Tensor [T], int64
        The item's id; 0 of a session without events.
    """

    session: Tensor
    seen: Tensor
    item: Tensor


def last_items(sessions: Sessions, item: str, limit: int) -> Targets:
    """The last item of each session, in their order: what `ranks` ranks."""
    n = sessions.lengths
    target = torch.zeros_like(n)
    target[n > 0] = sessions.values[item][sessions.offsets[1:][n > 0] - 1]
    return Targets(torch.arange(len(n)), (n.clamp(max=limit) - 1).clamp(min=0), target)


def all_items(sessions: Sessions, item: str, limit: int) -> Targets:
    """Every item but the first of each session, in order of session and event: what `all_ranks` ranks."""
    n = sessions.lengths
    owner = torch.repeat_interleave(torch.arange(len(n)), n)
    position = torch.arange(int(n.sum())) - torch.repeat_interleave(sessions.offsets[:-1], n)
    later = position > 0
    return Targets(owner[later], position[later].clamp(max=limit - 1), sessions.values[item][later])


def prefixes(sessions: Sessions, chosen: Tensor, limit: int) -> Sessions:
    """Some sessions once for every item but their first: the item, and the events before it.

    Parameters
    ----------
    sessions : Sessions
        The window.
    chosen : Tensor [B], int64
        Which sessions.
    limit : int
        The most events of a prefix, its last item among them; older ones are left out.

    Returns
    -------
    Sessions
        In order of session and event. Features of sessions are repeated.
    """
    n = sessions.lengths[chosen]
    more = (n - 1).clamp(min=0)
    owner = torch.repeat_interleave(chosen, more)
    end = torch.arange(int(more.sum())) - torch.repeat_interleave(more.cumsum(0) - more, more) + 2
    size = end.clamp(max=limit)
    offsets = torch.cat([size.new_zeros(1), size.cumsum(0)])
    first = sessions.offsets[owner] + end - size
    index = torch.arange(int(size.sum())) + torch.repeat_interleave(first - offsets[:-1], size)
    values = {name: value[owner] if name in sessions.whole else value[index] for name, value in sessions.values.items()}
    return Sessions(values, offsets, sessions.whole)


def all_ranks(
    scores: Scorer,
    sessions: Sessions,
    item: Feature,
    limit: int,
    exclude: str = "none",
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """Rank of every item but the first of each session, given the events before it.

    Each prefix is scored as a session of its own by `ranks`, so that nothing can leak from the events behind it,
    whatever the model; prefixes are made for some sessions at a time.

    Parameters
    ----------
    scores, sessions, item, limit, exclude, batch_size, device, advance
        As for `ranks`; `advance` is told the number of targets.

    Returns
    -------
    Tensor [T], float32
        In the order of `all_items`; infinite and NaN as for `ranks`.
    """
    n = sessions.lengths
    # An upper bound of the events that a session's prefixes have.
    events = ((n - 1).clamp(min=0) * n.clamp(max=limit)).cumsum(0)
    found, begin = [torch.empty(0)], 0
    while begin < len(n):
        before = int(events[begin - 1]) if begin else 0
        end = max(begin + 1, int(torch.searchsorted(events, before + _EVENTS_AT_ONCE, right=True)))
        some = prefixes(sessions, torch.arange(begin, end), limit)
        if len(some):
            found.append(ranks(scores, some, item, limit, exclude, batch_size, device, advance))
        begin = end
    return torch.cat(found)
