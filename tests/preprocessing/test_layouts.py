"""The features depend on the events alone: not on files, row groups, partitions, threads or processes."""

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from preprocessing import preprocess as stage

from .helpers import assert_same, content, run


def random_events(rng):
    """A few hundred events with ties, gaps, empty and missing values, rare and late items, and some broken rows."""
    n = int(rng.integers(200, 400))
    minutes = np.sort(rng.integers(0, 4000, n)) if rng.random() < 0.5 else rng.integers(0, 4000, n)
    moments = np.datetime64("2024-01-01T00:00") + minutes.astype("timedelta64[m]")
    at = [str(moment) for moment in moments]
    # New items appear late, so that training does not know them.
    items = (rng.zipf(1.6, n) % 40 + 40 * ((minutes > 3500) & (rng.random(n) < 0.2))).tolist()
    if rng.random() < 0.5:
        items = [f"sku-{item}" for item in items]
    visits = rng.integers(0, 30, n).tolist()
    if rng.random() < 0.5:
        visits = [f"v{visit}" for visit in visits]
    columns = {
        "visit": _with_gaps(rng, visits, 0.01),
        "sku": _with_gaps(rng, items, 0.01),
        "at": _with_gaps(rng, at, 0.01, "someday"),
        "brand": _with_gaps(rng, _with_gaps(rng, rng.choice(["x", "y", "zed", "ä"], n).tolist(), 0.1), 0.1, ""),
        "stock": _with_gaps(rng, rng.integers(-3, 9, n).tolist(), float(rng.choice([0, 0.1]))),
        "price": _with_gaps(rng, np.round(rng.gamma(2, 5, n), 2).tolist(), 0.1),
        "place": rng.integers(0, 3, n).tolist(),
    }
    return pa.table(columns)


def _with_gaps(rng, values, share, gap=None):
    return [gap if rng.random() < share else value for value in values]


def random_settings(rng):
    keys = {"item": "sku", "time": "at", "max_bad_share": 1}
    keys |= {"order": "place"} if rng.random() < 0.3 else {}
    if rng.random() < 0.3:
        keys["where"] = {"price": {"min": 3.0}, "brand": {"not_matches": "^z"}}
    sessions = {
        "max_length": int(rng.choice([3, 20])),
        "min_length": int(rng.choice([2, 3])),
        "collapse_repeats": bool(rng.random() < 0.5),
        "min_item_count": int(rng.choice([0, 3])),
        "unknown_items": str(rng.choice(["keep", "drop"])),
    }
    if rng.random() < 0.5:
        keys["user"], sessions["gap"] = "visit", "12 h"
    else:
        keys["session"] = "visit"
    brand = {"column": "brand", "min_count": int(rng.choice([0, 30])), "buckets": int(rng.choice([0, 3]))}
    price = {"column": "price", "log": bool(rng.random() < 0.5)}
    features = {
        "item": {"categorical": _some(rng, [brand]), "continuous": [price]},
        "event": {"categorical": _some(rng, [{"column": "stock", "hash": 4}, "place"])},
        "time": _some(rng, ["hour", "age", "since_previous"]),
        "relative": _some(rng, [{"column": "price", "to": "brand"}]),
        "frequency": _some(rng, ["sku"]),
    }
    return {"events": keys, "sessions": sessions, "features": features, "split": {"valid": 0.15, "test": 0.15}}


def _some(rng, choices):
    return [choice for choice in choices if rng.random() < 0.5]


def lay_out(rng, events, folder, csv):
    """Cut the events into files of random sizes and kinds, in their order."""
    for old in [*folder.glob("*.parquet"), *folder.glob("*.csv*")]:
        old.unlink()
    cuts = np.sort(rng.integers(0, len(events) + 1, int(rng.integers(0, 7))))
    edges = [0, *cuts.tolist(), len(events)]
    for number, (begin, end) in enumerate(pairwise(edges)):
        part, name = events.slice(begin, end - begin), folder / f"{number:03d}"
        if csv:
            # Arrow compresses by the ending.
            with pa.output_stream(f"{name}.{rng.choice(['csv', 'csv.gz'])}") as stream:
                pa.csv.write_csv(part, stream)
        else:
            pq.write_table(
                part,
                f"{name}.parquet",
                row_group_size=int(rng.integers(20, 400)),
                write_statistics=bool(rng.random() < 0.5),
            )


def outcome(dataset, out, **how):
    """All that the stage says of the events, and the features."""
    report = run(dataset, out, **how)
    facts = {name: report[name] for name in ("events_read", "events_dropped", "events", "sessions", "items", "windows")}
    facts |= {"data": {name: report["data"][name] for name in ("events", "catalogue")}}
    facts["numbers"] = {
        (window, name): (seen["n"], seen["missing"])
        for window, features in report["data"]["features"]["continuous"].items()
        for name, seen in features.items()
    }
    facts["codes"] = report["data"]["features"]["categorical"]
    facts["files"] = [(out / name).read_text() for name in ("request.json", "schema.pbtxt")]
    bad = pq.read_table(out / "quarantine.parquet").to_pylist() if (out / "quarantine.parquet").exists() else []
    facts["bad"] = sorted(
        json.dumps([value for name, value in row.items() if name not in ("_file", "_row")]) for row in bad
    )
    return facts, content(out)


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 30))])
def test_layout_does_not_matter(make, tmp_path, monkeypatch, seed):
    rng = np.random.default_rng(seed)
    events, settings = random_events(rng), random_settings(rng)
    csv = seed % 3 == 0
    settings["events"]["files"] = ["*.csv*" if csv else "*.parquet"]
    dataset, found = make(events, **settings), []
    for number, size in enumerate((int(rng.integers(70, 120)), int(rng.choice([250, 10**6])))):
        lay_out(rng, events, tmp_path, csv)
        # Once through files, as large data goes, and once through memory.
        monkeypatch.setattr(stage, "_IN_MEMORY", number * 10**9)
        how = {"partition_events": size, "cluster": f"threads[{2 - number}]"}
        found.append(outcome(dataset, tmp_path / f"out-{number}", **how))
    assert found[0][0] == found[1][0]
    assert_same(found[0][1], found[1][1])
