"""The events that the engines are measured on: a shop's log, made file by file.

    python -m benchmarks.engines.data FOLDER EVENTS

Sessions of about 8 events, minutes to an hour long, start over 30 days, more of them by day than by night, and lie
interleaved in one log in time order, a file for every million events. An item in 200 has no category, one price in 100
is missing, and one event in 100 carries the very time of the event before it, so the order of ties counts. Items of
Zipf-like popularity leave some that only the last days show.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FILE_EVENTS = 1_000_000
DAYS, DAY_MS = 30, 86_400_000
FIRST_DAY_MS = 1_738_368_000_000  # 2025-02-01
SESSION_EVENTS, GAP_MS, LONGEST_GAP_MS = 8, 90_000, 1_200_000
CATEGORIES = 1000
# Odd factors: multiplied by one, modulo a power of two, different numbers become different ids.
_SESSION_SPREAD, _ITEM_SPREAD = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03

Columns = dict[str, np.ndarray]


def make(folder: Path, events: int, seed: int = 0) -> None:
    """Write the event files, unless the folder holds them already.

    Parameters
    ----------
    folder : Path
        Gets ``events-<number>.parquet`` with ``session_id`` and ``item_id`` (int64), ``category`` (string),
        ``price`` (float64) and ``time`` (timestamp[ms]), and ``data.json`` once they are complete.
    events : int
        How many events in all.
    seed : int
        Of the random numbers.

    Raises
    ------
    FileExistsError
        When the folder holds other data.
    """
    facts = {"events": events, "seed": seed, "version": 1}
    done = folder / "data.json"
    if done.exists() and json.loads(done.read_text()) == facts:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} holds other data than {events:,} events of this benchmark: name another --data"
        )
    rng = np.random.default_rng(seed)
    shop = _Shop(rng, max(1000, events // 50))
    files = -(-events // FILE_EVENTS)
    carried: Columns | None = None
    sessions = 0
    for number in range(files):
        wanted = events * (number + 1) // files - events * number // files
        columns, begun = _sessions(rng, wanted, DAYS * number / files, DAYS * (number + 1) / files, sessions)
        sessions += begun
        if carried is not None:
            columns = {name: np.concatenate([carried[name], columns[name]]) for name in columns}
        order = np.argsort(columns["time"], kind="stable")
        columns = {name: values[order] for name, values in columns.items()}
        # Sessions that go on past the end of this file's days wait for the next file.
        last = number == files - 1
        end = len(order) if last else int(np.searchsorted(columns["time"], _moment(DAYS * (number + 1) / files)))
        carried = {name: values[end:] for name, values in columns.items()}
        table = shop.table({name: values[:end] for name, values in columns.items()})
        # Without Arrow's own schema in the file the category is plain text to every reader.
        pq.write_table(table, folder / f"events-{number:04d}.parquet", store_schema=False)
    done.write_text(json.dumps(facts))


def paths(folder: Path) -> list[Path]:
    """The event files of a folder, in the order of the log."""
    return sorted(folder.glob("events-*.parquet"))


def _moment(day: float | np.ndarray) -> np.ndarray:
    """Days since the first -> milliseconds since 1970; stretches the nights, so that they see fewer sessions."""
    stretched = day + 0.7 * np.sin(2 * np.pi * np.asarray(day)) / (2 * np.pi)
    return (FIRST_DAY_MS + stretched * DAY_MS).astype(np.int64)


def _sessions(rng: np.random.Generator, wanted: int, begin: float, end: float, known: int) -> tuple[Columns, int]:
    lengths = rng.geometric(1 / SESSION_EVENTS, size=2 * wanted // SESSION_EVENTS + 100)
    total = np.cumsum(lengths)
    count = int(np.searchsorted(total, wanted)) + 1
    lengths = lengths[:count]
    lengths[-1] -= int(total[count - 1]) - wanted
    start = _moment(np.sort(rng.uniform(begin, end, size=count)))
    gaps = np.minimum(rng.exponential(GAP_MS, size=wanted), LONGEST_GAP_MS).astype(np.int64)
    gaps[rng.random(wanted) < 0.01] = 0
    first = np.cumsum(lengths) - lengths
    gaps[first] = 0
    elapsed = np.cumsum(gaps)
    session = np.repeat(np.arange(count), lengths)
    time = start[session] + elapsed - elapsed[first][session]
    ids = _ids(np.arange(known, known + count), _SESSION_SPREAD, 63)
    return {"session": ids[session], "time": time, "chance": rng.random(wanted)}, count


def _ids(numbers: np.ndarray, spread: int, bits: int) -> np.ndarray:
    return (numbers.astype(np.uint64) * np.uint64(spread) % np.uint64(1 << bits)).astype(np.int64)


class _Shop:
    """The items: popularity, ids, categories and prices."""

    def __init__(self, rng: np.random.Generator, items: int) -> None:
        weight = 1 / (np.arange(items) + 2.7)
        self.cumulated = np.cumsum(weight) / weight.sum()
        self.ids = _ids(np.arange(1, items + 1), _ITEM_SPREAD, 40)
        self.category = rng.integers(CATEGORIES, size=items).astype(np.int32)
        self.no_category = rng.random(items) < 0.005
        self.price = np.round(rng.lognormal(3.0, 1.0, size=items), 2)
        self.names = pa.array([f"category-{number:03d}" for number in range(CATEGORIES)])

    def table(self, columns: Columns) -> pa.Table:
        """Events with what the shop knows of their items."""
        chance = columns["chance"]
        item = np.minimum(np.searchsorted(self.cumulated, chance), len(self.ids) - 1)
        # The low digits of the number that drew the item are as good as a new one.
        no_price = (chance * 1e9) % 1 < 0.01
        category = pa.DictionaryArray.from_arrays(
            pa.array(self.category[item], mask=self.no_category[item]), self.names
        )
        return pa.table(
            {
                "session_id": columns["session"],
                "item_id": self.ids[item],
                "category": category,
                "price": pa.array(self.price[item], mask=no_price),
                "time": pa.array(columns["time"], pa.timestamp("ms")),
            }
        )


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]))
