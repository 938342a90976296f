"""The report of the preprocessing stage, put together from what its steps counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from preprocessing.operators import Encode
from preprocessing.shuffle import Partition, Spilled
from preprocessing.statistics import EventStatistics, FeatureStatistics, catalogue
from preprocessing.transform import Written
from preprocessing.windows import WINDOWS, Windows, iso


def summarise(
    encode: Encode,
    item: str,
    spilled: Sequence[Spilled],
    partitions: Sequence[Partition],
    windows: Windows,
    written: Sequence[Written],
) -> dict[str, Any]:
    """What `preprocess` reports: rows in and out with every reason, the windows, and the statistics of the data.

    Parameters
    ----------
    encode : Encode
        The fitted operator of the item.
    item : str
        The item's raw column.
    spilled, partitions, written
        What each step says of its part of the work.
    windows : Windows
        Where the windows begin.
    """
    dropped: Counter[str] = Counter()
    for losses in (part.dropped for kind in (spilled, partitions, written) for part in kind):
        dropped.update(losses)
    bad: Counter[str] = Counter()
    for chunk in spilled:
        bad.update(chunk.bad)
    read = sum(result.read for result in spilled)
    events, features = EventStatistics(), FeatureStatistics()
    for partition in partitions:
        events.merge(partition.statistics)
    for result in written:
        features.merge(result.statistics)
    report: dict[str, Any] = {
        "events_read": read,
        "events_dropped": dict(dropped) | {f"unusable: {reason}": count for reason, count in bad.items()},
        "events": sum(result.events for result in written),
        "sessions": sum(result.sessions for result in written),
        "items": len(encode.values[item]),
        "windows": {
            window: {
                "begins": iso(windows.begins[window]),
                "sessions": sum(result.sessions for result in written if result.window == window),
                "events": sum(result.events for result in written if result.window == window),
            }
            for window in WINDOWS
        },
        "data": {
            "events": events.to_json(),
            "features": features.to_json(),
            "raw": raw_gaps(written),
            "catalogue": catalogue(encode.values[item], encode.counts[item]),
        },
    }
    if bad:
        report["quarantined"] = {"rows": bad.total(), "reasons": dict(bad), "share": bad.total() / read}
    return report


def raw_gaps(written: Sequence[Written]) -> dict[str, dict[str, Any]]:
    """Window -> ``events`` that went into the workflow, and how many of them miss a value, by column."""
    gaps: dict[str, dict[str, Any]] = {}
    for result in written:
        seen = gaps.setdefault(result.window, {"events": 0, "missing": Counter()})
        seen["events"] += result.seen
        seen["missing"].update(result.missing)
    return {window: seen | {"missing": dict(seen["missing"])} for window, seen in gaps.items()}
