"""The job in pandas and numpy: whole columns at a time, list columns as Arrow arrays with offsets.

A group-by that collects lists would make a Python object for every session and feature; sorted rows and the borders
between sessions say the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset  # read_table would import it inside the measured time
import pyarrow.parquet as pq

from benchmarks.engines import (
    CODED,
    COLUMNS,
    DAY_MS,
    FIRST,
    MAX_LENGTH,
    MIN_LENGTH,
    NULL,
    OUTLIER,
    SHARE,
    UNKNOWN,
    WINDOWS,
)


def settings() -> str:
    """What it is, in a few words."""
    return f"pandas {pd.__version__}, numpy {np.__version__}, pyarrow {pa.__version__}"


def run(files: list[Path], out: Path) -> None:
    """Do the job of `benchmarks.engines`."""
    table = pq.read_table(files, columns=list(COLUMNS), read_dictionary=["category"])
    # Texts stay what parquet holds them as: numbers into a list of the different ones.
    events = table.unify_dictionaries().to_pandas(self_destruct=True, split_blocks=True)
    del table
    time = events["time"].astype("int64").to_numpy()
    if not events["time"].is_monotonic_increasing:
        order = np.argsort(time, kind="stable")
        events, time = events.iloc[order], time[order]
    session, ids = pd.factorize(events["session_id"])
    rows = np.argsort(session, kind="stable")
    lengths = np.bincount(session)
    ends = np.cumsum(lengths)
    start = time[rows[ends - lengths]]
    window = _window(start, lengths)
    features, vocabularies = _features(events, time, window[session])
    del events, time
    (out / "vocabulary").mkdir(parents=True)
    for name, vocabulary in vocabularies.items():
        pd.DataFrame({"value": vocabulary.index, "count": vocabulary.to_numpy()}).to_parquet(
            out / "vocabulary" / f"{name}.parquet", index=False
        )
    for number, name in enumerate(WINDOWS):
        chosen = np.flatnonzero(window == number)
        kept = np.minimum(lengths[chosen], MAX_LENGTH)
        offsets = np.concatenate([[0], np.cumsum(kept)])
        taken = rows[np.arange(offsets[-1]) + np.repeat(ends[chosen] - kept - offsets[:-1], kept)]
        columns: dict[str, object] = {"session_id": ids[chosen]}
        for feature, values in features.items():
            lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values[taken]))
            columns[feature] = pd.Series(lists, dtype=pd.ArrowDtype(lists.type))
        (out / name).mkdir()
        frame = pd.DataFrame(columns)
        frame.to_parquet(out / name / "part.parquet", index=False, compression="zstd", compression_level=1)


def _window(start: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The window of each session: 0, 1, 2, or -1 where it is too short."""
    usable = lengths >= MIN_LENGTH
    ordered = np.sort(start[usable])
    held_out = max(1, round(len(ordered) * SHARE))
    valid, test = ordered[len(ordered) - 2 * held_out], ordered[len(ordered) - held_out]
    return np.where(usable, (start >= valid).astype(np.int8) + (start >= test), -1).astype(np.int8)


def _features(
    events: pd.DataFrame, time: np.ndarray, window: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, pd.Series]]:
    train = window == 0
    features, vocabularies = {}, {}
    for name in CODED:
        number, values = pd.factorize(events[name])
        values = pd.Index(np.asarray(values))
        counts: pd.Series = pd.Series(np.bincount(number[train & (number >= 0)], minlength=len(values)), index=values)
        known = counts[counts > 0].sort_index().sort_values(ascending=False, kind="stable")
        codes = np.full(len(values) + 1, UNKNOWN)
        codes[values.get_indexer(known.index)] = np.arange(FIRST, FIRST + len(known))
        codes[-1] = NULL  # where factorize finds a gap it says -1
        features[name], vocabularies[name] = codes[number], known
    price = np.log1p(events["price"].clip(lower=0))
    fitted = price[train]
    price = ((price - fitted.mean()) / fitted.std()).clip(-OUTLIER, OUTLIER).fillna(0)
    features["price"] = price.to_numpy(np.float32)
    angle = (time % DAY_MS) * (2 * np.pi / DAY_MS)
    features["hour_sin"], features["hour_cos"] = (f(angle).astype(np.float32) for f in (np.sin, np.cos))
    return features, vocabularies
