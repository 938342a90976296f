"""The items that the page shows, and the raw events that stand for a click on one.

A request holds raw event columns. The page knows only which item was clicked, so the item's columns come from its
latest event in the data, and the event's own have their most frequent value until another is chosen. The clock goes on
where the data ends, since that is the time the model knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.kernels import UNITS
from preprocessing.settings import Dataset

# Of a column of the event, such as the type of click, the page offers the most frequent values.
MOST_CHOICES = 12


@dataclass(frozen=True)
class Click:
    """One event of a session that is clicked together.

    Attributes
    ----------
    item : str
        The item's id as text; one that the catalogue does not have is sent as it is.
    after : float
        Seconds since the session began.
    choices : mapping of str to str
        Values of columns of the event, as text.
    """

    item: str
    after: float = 0.0
    choices: Mapping[str, str] = field(default_factory=dict)


class Catalogue:
    """Items with the columns of their latest events.

    Parameters
    ----------
    dataset : Dataset
        The description that the features were made from.
    request : mapping
        The content of ``request.json``.
    latest : pyarrow.Table
        One row an item, most popular first: the raw columns in the forms of the contract, time in nanoseconds.
    counts : mapping of str to Counter
        How often each value of the event's own categorical columns was seen.
    sessions : sequence of list of Click
        Real sessions to begin with.

    Attributes
    ----------
    ids : list of str
        Of the items, most popular first.
    choices : dict of str to list of str
        Column of the event -> its values, most frequent first, `MOST_CHOICES` at most.
    kind : str or None
        The first categorical column of the items, by which the page colours them.
    """

    def __init__(
        self,
        dataset: Dataset,
        request: Mapping[str, Any],
        latest: pa.Table,
        counts: Mapping[str, Counter[Any]],
        sessions: Sequence[list[Click]] = (),
    ) -> None:
        events = dataset.events
        self.sessions = list(sessions)
        self._columns: list[dict[str, Any]] = request["columns"]
        self._time: dict[str, str | None] = request["time"]
        self._latest = latest.combine_chunks()
        self.ids: list[str] = latest.column(events.item).cast(pa.string()).to_pylist()
        self._row = {item: row for row, item in enumerate(self.ids)}
        self._now: int = pc.max(latest.column(events.time.column)).as_py()
        self._meant = {name: {str(v): v for v, _ in seen.most_common()} for name, seen in counts.items() if seen}
        self.choices = {name: list(meant)[:MOST_CHOICES] for name, meant in self._meant.items() if len(meant) > 1}
        features = [column["name"] for column in self._columns if column["role"] == "feature"]
        of_event = dataset.features.event
        own = {entry.column for entry in of_event.categorical} | {entry.column for entry in of_event.continuous}
        self._shown = [name for name in features if name not in own]
        kinds = [entry.column for entry in dataset.features.item.categorical]
        self.kind = next((name for name in kinds if name in self._shown), None)
        texts = [latest.column(name).cast(pa.string()) for name in (events.item, *self._shown)]
        joined = pc.binary_join_element_wise(*texts, " ", null_handling="replace", null_replacement="")
        self._texts = pc.utf8_lower(joined)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, item: object) -> bool:
        return item in self._row

    def search(self, text: str, limit: int) -> list[str]:
        """Ids of the most popular items that have every word of `text` in their id or features."""
        rows = np.arange(len(self))
        for word in text.lower().split():
            rows = rows[pc.match_substring(self._texts.take(pa.array(rows)), word).to_numpy()]
        exact = self._row.get(text.strip())
        first = [] if exact is None else [exact]
        return [self.ids[row] for row in [*first, *(row for row in rows[: limit + 1].tolist() if row != exact)]][:limit]

    def describe(self, item: str) -> dict[str, str]:
        """The features of an item as text for people; none of an item that is not in the catalogue."""
        row = self._row.get(item)
        return {} if row is None else {name: _text(self._value(name, row)) for name in self._shown}

    def columns(self, clicks: Sequence[Click]) -> dict[str, list[Any]]:
        """The raw event columns of one session, as `NextItemClient.recommend` takes them."""
        return {column["name"]: self._column(column, clicks) for column in self._columns}

    def _value(self, name: str, row: int) -> Any:
        return self._latest.column(name)[row].as_py()

    def _column(self, column: Mapping[str, Any], clicks: Sequence[Click]) -> list[Any]:
        name, kind, role = column["name"], column["type"], column["role"]
        if role == "session":
            return ["playground" if kind == "BYTES" else 1] * len(clicks)
        if role == "item":
            return [self._value(name, self._row[c.item]) if c.item in self._row else c.item for c in clicks]
        if role == "time":
            return [self._moment(click.after, kind) for click in clicks]
        if role == "order":
            return list(range(1, len(clicks) + 1))
        return [self._feature(name, kind, click) for click in clicks]

    def _feature(self, name: str, kind: str, click: Click) -> Any:
        if name in self._meant:
            values = self._meant[name]
            return values.get(click.choices.get(name, ""), next(iter(values.values())))
        row = self._row.get(click.item)
        if row is None:
            # Whole numbers and booleans cannot be missing: those of the most popular item stand in.
            return self._value(name, 0) if kind in ("INT64", "BOOL") else None
        return self._value(name, row)

    def _moment(self, after: float, kind: str) -> Any:
        nanoseconds = self._now + round(after * 1000) * 1_000_000
        if kind != "BYTES":
            return nanoseconds // UNITS[self._time["unit"] or "ns"]
        moment = datetime.fromtimestamp(nanoseconds // 1_000_000 / 1000, UTC).replace(tzinfo=None)
        return moment.strftime(self._time["format"]) if self._time["format"] else moment.isoformat()


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
