"""How far new sessions are from the data that a workflow was fitted on.

The population stability index compares the shares e of the training data and a of the new data over some bins: the sum
of (a - e) ln(a / e) (Siddiqi, Credit Risk Scorecards, Wiley 2006, where below 0.1 means no change and from 0.25 on a
marked one). Without any change, samples of n and m are expected to give (bins - 1) (1 / n + 1 / m) (Yurdakul,
Statistical Properties of Population Stability Index, 2018). ``by_chance`` is that with n and m sessions, whose events
resemble each other: an index below it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from preprocessing.engine import nvtabular
from preprocessing.feature_settings import TIME_FEATURES
from preprocessing.kernels import NULL, RESERVED
from preprocessing.operators import Encode
from preprocessing.settings import ITEM_ID, Dataset
from preprocessing.statistics import FeatureStatistics
from preprocessing.workflow import operators_of

STABLE, MOVED, DRIFTED = "stable", "moved", "drifted"
_MOVED_FROM, _DRIFTED_FROM = 0.1, 0.25
_MOST_BINS = 20
# The share that an empty bin counts with: the logarithm of nothing is no number.
_LEAST_SHARE = 1e-4
_BLOCK_SESSIONS = 65_536


def psi(expected: np.ndarray, observed: np.ndarray) -> float | None:
    """The population stability index.

    Parameters
    ----------
    expected, observed : int64 [B]
        Events in each bin, of the training data and of the new data.

    Returns
    -------
    float or None
        0 for equal shares; None where one side has no event at all.
    """
    if not expected.sum() or not observed.sum():
        return None
    e, a = (np.maximum(counts / counts.sum(), _LEAST_SHARE) for counts in (expected, observed))
    return float(np.sum((a - e) * np.log(a / e)))


def verdict(index: float | None) -> str | None:
    """What an index means: ``"stable"``, ``"moved"`` from 0.1 on, ``"drifted"`` from 0.25 on."""
    if index is None:
        return None
    return STABLE if index < _MOVED_FROM else MOVED if index < _DRIFTED_FROM else DRIFTED


def equal_shares(counts: np.ndarray, most: int = _MOST_BINS) -> np.ndarray:
    """Group neighbours so that the groups have about equal shares.

    Parameters
    ----------
    counts : int64 [K]
        Events of each value, in an order that is to be kept.
    most : int
        Groups, at most.

    Returns
    -------
    int64 [K]
        Group of each value, numbered from 0 without gaps.
    """
    before = np.cumsum(counts) - counts
    place = np.minimum(before * most // max(int(counts.sum()), 1), most - 1)
    return np.asarray(np.cumsum(np.diff(place, prepend=place[:1]) > 0), dtype=np.int64)


@dataclass(frozen=True)
class _Codes:
    """A categorical feature in training: the bin of each code, and the events of each bin; null, unknown come last."""

    bins: np.ndarray
    expected: np.ndarray


class Reference:
    """What the training data looked like.

    Parameters
    ----------
    dataset : Dataset
        The description.
    workflow : nvtabular.Workflow
        Fitted on it.
    report : mapping
        Of the features' manifest; see `preprocessing.statistics.FeatureStatistics.to_json`.
    """

    def __init__(self, dataset: Dataset, workflow: nvtabular.Workflow, report: Mapping[str, Any]) -> None:
        counted = report["data"]["features"]
        train = {kind: counted[kind].get("train", {}) for kind in ("categorical", "continuous")}
        self.sessions = report["windows"]["train"]["sessions"]
        self.codes: dict[str, _Codes | None] = dict.fromkeys(train["categorical"])
        self.shares = train["categorical"]
        self.numbers = train["continuous"]
        encoders = [op for op in operators_of(workflow) if isinstance(op, Encode)]
        entries = [*dataset.features.item.categorical, *dataset.features.event.categorical]
        wanted = {entry.column: (entry.column, max(entry.min_count, 1), entry.buckets) for entry in entries}
        wanted[ITEM_ID] = (dataset.events.item, max(dataset.sessions.min_item_count, 1), 0)
        for name in self.codes:
            column, *rule = wanted.get(name, (name, 1, 0))
            for op in encoders:
                if column in op.values and [max(op.min_count, 1), op.buckets] == rule:
                    self.codes[name] = _codes(op, column)

    def _measure(self, paths: Sequence[Path]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Events of each bin of the categorical features, and the statistics of all, a block of sessions at a time."""
        statistics = FeatureStatistics()
        known = {name: codes for name, codes in self.codes.items() if codes is not None}
        found = {name: np.zeros(len(codes.expected), np.int64) for name, codes in known.items()}
        columns = [*self.codes, *self.numbers]
        for path in paths:
            with pa.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_BLOCK_SESSIONS, columns=columns):
                    block = pa.Table.from_batches([batch])
                    statistics.add("new", block, list(self.codes), list(self.numbers))
                    for name, codes in known.items():
                        values = codes.bins[pc.list_flatten(block.column(name)).to_numpy()]
                        found[name] += np.bincount(values, minlength=len(codes.expected))
        return found, statistics.to_json()

    def compare(self, paths: Sequence[Path], sessions: int) -> dict[str, dict[str, Any]]:
        """Hold files of sessions against the training data.

        Parameters
        ----------
        paths : sequence of Path
            Parquet files that the workflow made.
        sessions : int
            How many sessions they hold.

        Returns
        -------
        dict
            Feature -> ``kind``, ``psi``, ``by_chance``, ``verdict``; for categorical ones ``unknown`` and ``null``, the
            shares, and the same with ``_in_training``; for continuous ones ``mean_shift`` (in deviations of the
            training data) and ``deviation_ratio``. None where there is nothing to compute it of, and for weekdays, of
            which a day has one.
        """
        observed, new = self._measure(paths)
        noise = 1 / self.sessions + 1 / max(sessions, 1)
        result = {}
        for name, codes in self.codes.items():
            seen, before = new["categorical"].get("new", {}).get(name), self.shares[name]
            result[name] = _compare_codes(codes, observed.get(name), seen, before, noise)
        for name, before in self.numbers.items():
            seen = new["continuous"].get("new", {}).get(name)
            # A day has one weekday: its distribution says nothing.
            result[name] = _compare_numbers(before, None if name in TIME_FEATURES["weekday"] else seen, noise)
        return result


def _codes(op: Encode, column: str) -> _Codes:
    """Known values by falling count in bins of about equal shares; buckets hold rare values: they count as unknown."""
    counts = op.counts[column]
    groups = equal_shares(counts)
    known = int(groups[-1]) + 1 if len(groups) else 0
    bins = np.full(RESERVED + op.buckets + len(counts), known + 1, dtype=np.int64)
    bins[NULL] = known
    bins[RESERVED + op.buckets :] = groups
    expected = np.bincount(groups, weights=counts, minlength=known).astype(np.int64)
    return _Codes(bins, np.append(expected, [op.nulls[column], op.rare[column]]))


def _compare_codes(
    codes: _Codes | None,
    observed: np.ndarray | None,
    seen: Mapping[str, int] | None,
    before: Mapping[str, int],
    noise: float,
) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": "categorical"} | _index(codes.expected if codes else None, observed, noise)
    if codes is None or observed is None:  # by hash: nothing is unknown
        for name, key in (("null", "nulls"), ("unknown", "unknown")):
            facts[name] = _share(seen[key], seen["events"]) if seen else None
            facts[f"{name}_in_training"] = _share(before[key], before["events"])
        return facts
    for name, place in (("null", -2), ("unknown", -1)):
        facts[name] = _share(observed[place], observed.sum())
        facts[f"{name}_in_training"] = _share(codes.expected[place], codes.expected.sum())
    return facts


def _compare_numbers(before: Mapping[str, Any], seen: Mapping[str, Any] | None, noise: float) -> dict[str, Any]:
    expected, observed = (_histogram(facts) if facts else None for facts in (before, seen))
    if expected is not None and observed is not None:
        groups = equal_shares(expected)
        expected, observed = (np.bincount(groups, weights=counts).astype(np.int64) for counts in (expected, observed))
    facts = {"kind": "continuous", **_index(expected, observed, noise), "mean_shift": None, "deviation_ratio": None}
    if seen and seen["n"] and before["n"]:
        step, deviation = seen["mean"] - before["mean"], before["std"]
        facts["mean_shift"] = step / deviation if deviation else None if step else 0.0
        facts["deviation_ratio"] = seen["std"] / deviation if deviation else None if seen["std"] else 1.0
    return facts


def _index(expected: np.ndarray | None, observed: np.ndarray | None, noise: float) -> dict[str, Any]:
    index, chance = None, None
    if expected is not None and observed is not None:
        index = psi(expected, observed)
        chance = (int(np.count_nonzero(expected + observed)) - 1) * noise
    return {"psi": index, "by_chance": chance, "verdict": verdict(index)}


def _histogram(facts: Mapping[str, Any]) -> np.ndarray:
    return np.array([facts["below"], *facts["histogram"], facts["above"]], dtype=np.int64)


def _share(part: Any, whole: Any) -> float | None:
    return int(part) / int(whole) if whole else None
