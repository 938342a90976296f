"""The split of sessions into windows of time, over partitions that do not fit into memory together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from common.errors import UserError
from preprocessing.settings import Dataset
from preprocessing.shuffle import Partition

WINDOWS = ("train", "valid", "test")


@dataclass(frozen=True)
class Windows:
    """Where each window begins.

    Attributes
    ----------
    begins : dict of str to int
        Nanoseconds since 1970 of train, valid and test; a window ends where the next begins.
    """

    begins: dict[str, int]

    def range(self, partition: Partition, window: str) -> tuple[int, int]:
        """Sessions of a partition that start in a window: from, to."""
        starts, (begin, end) = partition.starts(), self._span(window)
        return int(np.searchsorted(starts, begin)), len(starts) if end is None else int(np.searchsorted(starts, end))

    def _span(self, window: str) -> tuple[int, int | None]:
        position = WINDOWS.index(window)
        following = [self.begins[name] for name in WINDOWS[position + 1 :]]
        return self.begins[window], min(following) if following else None


def split(partitions: Sequence[Partition], dataset: Dataset) -> Windows:
    """Decide where the windows begin.

    Parameters
    ----------
    partitions : sequence of Partition
        All sessions.
    dataset : Dataset
        Its ``split`` gives shares of the sessions, counted from the latest, or points in time.

    Raises
    ------
    UserError
        When there is no session, or a window would hold none.
    """
    starts = [partition.starts() for partition in partitions if partition.sessions]
    total = sum(len(array) for array in starts)
    if not total:
        shortest = dataset.sessions.min_length
        raise UserError(f"{dataset.name}: no session has {shortest} events: is events.session right?")
    rule, first = dataset.split, min(int(array[0]) for array in starts)
    if rule.valid_from and rule.test_from:
        valid, test = (_nanoseconds(point) for point in (rule.valid_from, rule.test_from))
    else:
        test_count, valid_count = (max(1, round(total * share)) for share in (rule.test, rule.valid))
        test = nth(starts, max(0, total - test_count))
        valid = nth(starts, max(0, total - test_count - valid_count))
    windows = Windows({"train": first, "valid": valid, "test": test})
    for window in WINDOWS:
        if not any(np.subtract(*windows.range(partition, window)) for partition in partitions):
            last = max(int(array[-1]) for array in starts)
            raise UserError(
                f"{dataset.name}: the {window} window ({iso(windows.begins[window])} on) holds no session; sessions "
                f"start from {iso(first)} to {iso(last)}: change split"
            )
    return windows


def nth(arrays: Sequence[np.ndarray], n: int) -> int:
    """The n-th smallest value (from 0) of sorted arrays together, without putting them together.

    Halves the range of values until one is left; each step looks up one value in every array.
    """
    low, high = min(int(array[0]) for array in arrays), max(int(array[-1]) for array in arrays)
    while low < high:
        middle = (low + high) // 2
        if sum(int(np.searchsorted(array, middle, side="right")) for array in arrays) > n:
            high = middle
        else:
            low = middle + 1
    return low


def iso(nanoseconds: int) -> str:
    """A moment as ISO 8601, UTC."""
    return str(pd.Timestamp(int(nanoseconds)).isoformat())


def _nanoseconds(point: datetime) -> int:
    aware = point if point.tzinfo else point.replace(tzinfo=UTC)
    return int(pd.Timestamp(aware).value)
