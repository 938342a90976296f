"""The best that any model can do on the simulated shop, on exactly the sessions that a model is judged on.

::

    shop = build_shop(settings)
    optimum(shop, events, session_ids=held_out, ks=(10, 20))  # {"ndcg@20": ..., "expected_ndcg@20": ..., ...}

Held-out sessions are taken whole: the oracle reads all events before the last one, also where a model keeps only
the most recent ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from preprocessing.shop.law import EVENT_TYPES, PADDING, Floats, Ints, Shop, next_item_probabilities

# What an item at a rank (1 is the top) is worth when it is the one that came, for ranks up to k.
GAINS: dict[str, Callable[[Floats], Floats]] = {
    "recall": np.ones_like,
    "ndcg": lambda rank: 1.0 / np.log2(rank + 1.0),
    "mrr": lambda rank: 1.0 / rank,
}


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Sessions cut before their last event.

    Attributes
    ----------
    session_id : ndarray [S]
        Rising.
    items, event_types : int64 [S, L]
        All events but the last, oldest first, as indices and codes, padded on the right with -1.
    target : int64 [S]
        Index of the last item.
    """

    session_id: np.ndarray
    items: Ints
    event_types: Ints
    target: Ints


def prefixes_of(shop: Shop, events: pa.Table, session_ids: ArrayLike | None = None) -> Prefixes:
    """Cut sessions before their last event.

    Parameters
    ----------
    shop : Shop
        The shop that the events come from.
    events : pyarrow.Table
        Raw events as `simulate` makes them, in any order; other sessions may be among them.
    session_ids : array-like of int, optional
        Which sessions. Without it, all that have two events or more.

    Returns
    -------
    Prefixes

    Raises
    ------
    ValueError
        When a session that was asked for is not there or has only one event, or an item is not the shop's.
    """
    if session_ids is not None:
        wanted = np.unique(np.asarray(session_ids, np.int64))
        events = events.filter(pc.is_in(events["session_id"], value_set=pa.array(wanted)))
    session = events["session_id"].to_numpy()
    order = np.lexsort((events["time"].to_numpy(), session))
    item = _codes(events["item_id"], pa.array(shop.item_ids), "item_id")[order]
    kind = _codes(events["event_type"], pa.array(EVENT_TYPES), "event_type")[order]
    names, first, lengths = np.unique(session[order], return_index=True, return_counts=True)
    if session_ids is not None:
        missing = np.setdiff1d(wanted, names[lengths > 1])
        if missing.size:
            raise ValueError(f"{missing.size} sessions have no two events in the table, among them {missing[0]}")
    row = np.repeat(np.arange(names.size), lengths)
    position = np.arange(row.size) - first[row]
    known = position < lengths[row] - 1
    items = np.full((names.size, max(int(lengths.max(initial=1)) - 1, 1)), PADDING, np.int64)
    event_types = items.copy()
    items[row[known], position[known]] = item[known]
    event_types[row[known], position[known]] = kind[known]
    keep = lengths > 1
    return Prefixes(names[keep], items[keep], event_types[keep], item[~known][keep])


def optimum(
    shop: Shop, events: pa.Table, session_ids: ArrayLike | None = None, ks: Sequence[int] = (10, 20)
) -> dict[str, float]:
    """Accuracy of ranking by the true chances, for the last item of each session.

    Given the session so far, a ranking that puts item i at rank r_i is worth ``sum_i P(i) * gain(r_i)`` in
    expectation, where the gain (1, ``1 / log2(rank + 1)`` or ``1 / rank``, and 0 beyond k) never rises with the
    rank. By the rearrangement inequality the sum is largest when the items stand in falling order of P(i). The law
    depends on nothing but the session so far, and sessions are drawn independently of each other, so no other knowledge
    (earlier sessions, the time, the price) changes P: no model can have a higher expectation. On the sessions that
    were really drawn, a model may come out above the optimum's realised value by chance only.

    Parameters
    ----------
    shop : Shop
        From `build_shop` with the settings of the events.
    events : pyarrow.Table
        Raw events.
    session_ids : array-like of int, optional
        The held-out sessions; without it all that have two events or more. Each counts with all of its events.
    ks : sequence of int
        Cut-offs.

    Returns
    -------
    dict of str to float
        ``recall@k``, ``ndcg@k`` and ``mrr@k`` as realised on these sessions; the same after ``expected_``: what the
        ranking gets in expectation over the law, given the prefixes; ``sessions``: how many.

    Raises
    ------
    ValueError
        As `prefixes_of`; also when there is no session at all.
    """
    prefixes = prefixes_of(shop, events, session_ids)
    count = prefixes.target.size
    if not count:
        raise ValueError("no session of two events or more to rank the last item of")
    totals: dict[str, float] = {}
    step = max(1, 4_000_000 // shop.popularity.size)  # the full vectors of a batch take some 32 MB
    for at in range(0, count, step):
        batch = slice(at, at + step)
        chance = next_item_probabilities(shop, prefixes.items[batch], prefixes.event_types[batch])
        parts = realised_gains(chance, prefixes.target[batch], ks)
        parts |= {f"expected_{name}": value for name, value in expected_gains(chance, chance, ks).items()}
        for name, values in parts.items():
            totals[name] = totals.get(name, 0.0) + float(values.sum())
    return {name: total / count for name, total in totals.items()} | {"sessions": float(count)}


def realised_gains(scores: Floats, target: Ints, ks: Sequence[int] = (10, 20)) -> dict[str, Floats]:
    """Worth of ranking by scores when `target` came: ``recall@k``, ``ndcg@k``, ``mrr@k``, each float64 [B].

    Ties are broken against the target: an item with the same score as it stands before it.

    Parameters
    ----------
    scores : float [B, items]
        Any model's scores, higher is better.
    target : int64 [B]
        Index of the item that came.
    ks : sequence of int
        Cut-offs.
    """
    rank = (scores >= scores[np.arange(len(scores)), target][:, None]).sum(axis=1).astype(float)
    return {f"{name}@{k}": np.where(rank <= k, gain(rank), 0.0) for k in ks for name, gain in GAINS.items()}


def expected_gains(scores: Floats, chance: Floats, ks: Sequence[int] = (10, 20)) -> dict[str, Floats]:
    """Worth of ranking by scores in expectation, when the next item comes with the given chances.

    Parameters
    ----------
    scores : float [B, items]
        Any model's scores, higher is better; of equal ones the lower index stands first.
    chance : float64 [B, items]
        The law, from `next_item_probabilities`.
    ks : sequence of int
        Cut-offs.

    Returns
    -------
    dict of str to float64 [B]
        ``recall@k``, ``ndcg@k``, ``mrr@k``.
    """
    longest = min(max(ks), scores.shape[1])
    ranked = np.take_along_axis(chance, np.argsort(-scores, axis=1, kind="stable")[:, :longest], axis=1)
    rank = np.arange(1.0, longest + 1.0)
    return {f"{name}@{k}": ranked @ np.where(rank <= k, gain(rank), 0.0) for k in ks for name, gain in GAINS.items()}


def _codes(column: pa.ChunkedArray, values: pa.Array, name: str) -> Ints:
    """Place of each value of a column in a list of values, int64."""
    found = pc.index_in(column, value_set=values)
    if found.null_count:
        stranger = pc.filter(column, pc.is_null(found))[0]
        raise ValueError(f"column {name}: {stranger} is not of this shop; were the events made with other settings?")
    return found.to_numpy().astype(np.int64)
