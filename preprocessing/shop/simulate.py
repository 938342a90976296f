"""Draw the events of the simulated shop and write them as parquet."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import UserError
from preprocessing.shop.law import (
    EVENT_TYPES,
    PADDING,
    VIEW,
    Floats,
    Ints,
    Shop,
    ShopSettings,
    build_shop,
    draw_next_items,
)

# Relative traffic by hour of the day (quiet at night, highest in the evening) and by weekday, Monday first.
_BY_HOUR = np.array([4, 2, 1, 1, 1, 2, 4, 7, 9, 10, 11, 12, 13, 12, 11, 11, 12, 13, 15, 18, 20, 18, 13, 8], float)
_BY_WEEKDAY = np.array([10, 9, 9, 10, 11, 14, 15], float)
_HOUR_MS = 3_600_000


def simulate(settings: ShopSettings) -> pa.Table:
    """Simulate the shop.

    Parameters
    ----------
    settings : ShopSettings
        The same settings give the same table.

    Returns
    -------
    pyarrow.Table
        One row an event, in order of time, so that the sessions interleave: ``session_id`` int64, ``item_id``
        string (or int64), ``time`` timestamp[ms], ``category`` string, ``price`` float64, ``event_type`` string.
    """
    shop = build_shop(settings)
    rng = np.random.default_rng([settings.seed, 1])
    lengths = _lengths(settings, rng)
    items, event_types = _sessions(shop, lengths, rng)
    times = _times(settings, lengths, rng)
    names = rng.permutation(settings.sessions) + 1  # an id does not tell when the session was
    row, position = np.nonzero(items != PADDING)
    order = np.lexsort((row, times[row, position]))
    row, position = row[order], position[order]
    item = items[row, position]
    categories = pa.array([f"category-{each:02d}" for each in range(settings.categories)])
    return pa.table(
        {
            "session_id": pa.array(names[row], pa.int64()),
            "item_id": pa.array(shop.item_ids).take(pa.array(item)),
            "time": pa.array(times[row, position].astype("datetime64[ms]")),
            "category": categories.take(pa.array(shop.category[item])),
            "price": pa.array(shop.price[item]),
            "event_type": pa.array(EVENT_TYPES).take(pa.array(event_types[row, position])),
        }
    )


def write_events(settings: ShopSettings, path: Path | str) -> Path:
    """Simulate the shop into one parquet file, whole or not at all.

    Parameters
    ----------
    settings : ShopSettings
        What to simulate.
    path : Path or str
        The file to write or replace; its folder is made.

    Returns
    -------
    Path
        The path.

    Raises
    ------
    UserError
        When nothing can be written there.
    """
    path = Path(path)
    events = simulate(settings)
    partial = path.parent / f".{path.name}.partial-{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            pq.write_table(events, partial, row_group_size=100_000)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: the simulated events cannot be written there: {error.strerror or error}") from error
    return path


def _lengths(settings: ShopSettings, rng: np.random.Generator) -> Ints:
    """Events in each session, int64 [sessions]: one, or two and a geometric number more, whatever the items are."""
    several = (settings.mean_events - settings.single_share) / max(1.0 - settings.single_share, 1e-9)
    more = rng.geometric(1.0 / max(several - 1.0, 1.0), settings.sessions) - 1
    single = rng.random(settings.sessions) < settings.single_share
    return np.where(single, 1, np.minimum(2 + more, settings.max_events))


def _sessions(shop: Shop, lengths: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Items and event types of all sessions, each int64 [sessions, longest], padded on the right with -1.

    The loop is over the position in the session; at each one, all sessions that are that long take a step at once.
    """
    items = np.full((lengths.size, int(lengths.max())), PADDING, np.int64)
    event_types = items.copy()
    steps = shop.event_types.cumsum(axis=1)[:, :-1]
    for position in range(items.shape[1]):
        active = np.flatnonzero(lengths > position)
        so_far = items[active, :position], event_types[active, :position]
        present = so_far[1][:, -1] if position else np.full(active.size, VIEW)
        items[active, position] = draw_next_items(shop, *so_far, rng)
        event_types[active, position] = (rng.random(active.size)[:, None] >= steps[present]).sum(axis=1)
    return items, event_types


def _times(settings: ShopSettings, lengths: Ints, rng: np.random.Generator) -> Ints:
    """Time of each event, int64 ms since 1970 [sessions, longest]; it rises by a second or more in a session."""
    try:
        first = np.datetime64(settings.start, "ms")
    except ValueError as error:
        raise UserError(f"simulated shop: start is {settings.start!r}; give a day such as 2025-03-03") from error
    # Day 0 of the epoch was a Thursday.
    weekday = (first.astype("datetime64[D]").astype(np.int64) + 3 + np.arange(settings.days)) % 7
    traffic: Floats = (_BY_WEEKDAY[weekday][:, None] * _BY_HOUR).ravel()
    hour = rng.choice(traffic.size, settings.sessions, p=traffic / traffic.sum())
    start = first.astype(np.int64) + hour * _HOUR_MS + rng.integers(0, _HOUR_MS, settings.sessions)
    gaps = rng.lognormal(np.log(45_000), 1.0, (lengths.size, int(lengths.max())))  # 45 s in the middle
    gaps = np.clip(gaps, 1_000, 1_200_000).astype(np.int64)
    gaps[:, 0] = 0
    return start[:, None] + gaps.cumsum(axis=1)
