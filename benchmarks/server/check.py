"""Whether two servers recommend the same items for the same sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.server import STOCK_WORKFLOW
from benchmarks.server.requests import joined, sessions_of

SESSIONS = 50
# Stock NVTabular sums squares in single precision, which moves a normalised price by some 1e-6, and a score by less.
_TIE = 1e-3


@dataclass(frozen=True)
class Answer:
    """Recommendations for one session: items, best first, and their scores."""

    items: list[str]
    scores: list[float]


def ask(engine: str, folder: Path, address: str) -> dict[int, Answer]:
    """Ask a server over gRPC for the first sessions of the sample, all in one request.

    Parameters
    ----------
    engine : {"nextitem", "stock"}
        Which client to use.
    folder : Path
        What `benchmarks.server.build` made.
    address : str
        ``host:port``.

    Returns
    -------
    dict
        Session id -> answer, with original item ids.
    """
    events = joined(sessions_of(folder)[:SESSIONS])
    if engine == "stock":
        from serving.stock import IDS, SCORES, ask_stock

        found = ask_stock(address, events)
        known = pd.read_parquet(folder / STOCK_WORKFLOW / "categories" / "unique.item_id.parquet")["item_id"]
        # It does not say which row is which session: they are in ascending order.
        rows = zip(np.unique(events["session_id"]).tolist(), found[IDS], found[SCORES].tolist(), strict=True)
        return {session: Answer(known.loc[codes].tolist(), scores) for session, codes, scores in rows}
    from serving.client import NextItemClient

    with NextItemClient(address) as client:
        answer = client.recommend(events)
    rows = zip(answer.session_id, answer.item_id, np.asarray(answer.score).tolist(), strict=True)
    return {int(session): Answer(list(items), scores) for session, items, scores in rows}


def compare(ours: Mapping[int, Answer], others: Mapping[int, Answer]) -> str:
    """What to say of two servers' answers, in one line.

    Items whose scores are the same within rounding may have changed places.

    Returns
    -------
    str
        Begins with ``"the same items"`` when every session got them.
    """
    if set(ours) != set(others):
        return f"other sessions: {len(ours)} and {len(others)} were answered"
    wrong = [session for session, answer in ours.items() if not _alike(answer, others[session])]
    if not wrong:
        return f"the same items for all {len(ours)} sessions"
    common = np.mean([len(set(ours[s].items) & set(others[s].items)) / len(ours[s].items) for s in wrong])
    return (
        f"other items for {len(wrong)} of {len(ours)} sessions, such as {wrong[0]}; {common:.0%} of theirs are common"
    )


def _alike(one: Answer, other: Answer) -> bool:
    if len(one.items) != len(other.items):
        return False
    pairs: Any = zip(one.items, other.items, one.scores, other.scores, strict=True)
    return all(abs(a - b) <= _TIE * max(1.0, abs(a)) and (x == y or _tied(x, a, other)) for x, y, a, b in pairs)


def _tied(item: str, score: float, other: Answer) -> bool:
    """Whether an item stands elsewhere in the other answer with the same score, or below its end."""
    if item in other.items:
        return abs(other.scores[other.items.index(item)] - score) <= _TIE * max(1.0, abs(score))
    return score - other.scores[-1] <= _TIE * max(1.0, abs(score))
