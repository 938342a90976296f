"""Fit a workflow on partitions, and write what it makes of them."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from preprocessing import frames
from preprocessing.cluster import Workers
from preprocessing.engine import LocalExecutor, MerlinDataset, Tags, dd, nvtabular
from preprocessing.operators import GroupSessions
from preprocessing.settings import ITEM_ID, SESSION_ID
from preprocessing.shuffle import Partition, unfinished
from preprocessing.statistics import FeatureStatistics
from preprocessing.windows import Windows

_ROW_GROUP = 65_536
# NVTabular runs the fitted graph on the first partition once more, to learn dtypes: a small one will do.
_SAMPLE_SESSIONS = 256


class _Load:
    """Reads a range of a partition's events as a data frame; dask asks it for fewer columns where it can.

    The partitions are here and not among dask's inputs, because dask reads all of its inputs to name them.
    """

    def __init__(self, partitions: Sequence[Partition], gpu: bool, columns: Sequence[str] | None = None) -> None:
        self.partitions, self.gpu, self.columns = partitions, gpu, columns

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return *(str(part.folder) for part in self.partitions[:1]), self.gpu, self.columns

    def project_columns(self, columns: Sequence[str]) -> _Load:
        """The same, reading these columns only."""
        return _Load(self.partitions, self.gpu, list(columns))

    def __call__(self, piece: tuple[int, int, int]) -> Any:
        number, begin, end = piece
        return frames.from_table(self.partitions[number].table(begin, end, self.columns), self.gpu)


def fit(
    workflow: nvtabular.Workflow, partitions: Sequence[Partition], windows: Windows, workers: Workers
) -> nvtabular.Workflow:
    """Fit a workflow on the training window."""
    pieces: list[tuple[int, int, int]] = []
    for number, part in enumerate(partitions):
        begin, end = windows.range(part, "train")
        offsets = part.offsets()
        cuts = [begin, end] if pieces else [begin, min(end, begin + _SAMPLE_SESSIONS), end]
        pieces += [(number, int(offsets[a]), int(offsets[b])) for a, b in pairwise(cuts) if b > a]
    load = _Load(partitions, workers.gpu)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        meta = load((pieces[0][0], 0, 0))
        events = dd.from_map(load, pieces, meta=meta, enforce_metadata=False)
        workflow.fit(MerlinDataset(events, cpu=not workers.gpu))
    return workflow


@dataclass(frozen=True)
class Transform:
    """Sessions `begin` to `end` of a partition, to be written into a folder."""

    partition: Partition
    begin: int
    end: int
    folder: Path
    window: str
    name: str = "part"


@dataclass
class Written:
    """What was written of one `Transform`.

    Attributes
    ----------
    window : str
        Of the task.
    seen : int
        Events that went in.
    sessions, events : int
        What came out.
    dropped : Counter
        Events that did not, by reason.
    missing : Counter
        Events that went in without a value, by raw column.
    statistics : FeatureStatistics
        Of the encoded features.
    """

    window: str
    seen: int = 0
    sessions: int = 0
    events: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    statistics: FeatureStatistics = field(default_factory=FeatureStatistics)


def transform(
    workflow: nvtabular.Workflow,
    tasks: Sequence[Transform],
    workers: Workers,
    scratch: Path,
    done: Callable[[Written], None],
) -> list[Written]:
    """Transform and write ranges of sessions; every worker loads the workflow once."""
    saved = scratch / "workflow"
    workflow.save(str(saved))
    return workers.map(partial(_transform, saved, workers.gpu), [task for task in tasks if task.end > task.begin], done)


@lru_cache(maxsize=1)
def _load_workflow(path: Path) -> nvtabular.Workflow:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nvtabular.Workflow.load(str(path))


def _transform(saved: Path, gpu: bool, task: Transform) -> Written:
    workflow, offsets = _load_workflow(saved), task.partition.offsets()
    begin, end = int(offsets[task.begin]), int(offsets[task.end])
    written = Written(task.window, seen=end - begin)
    raw = task.partition.table(begin, end)
    written.missing.update({name: raw.column(name).null_count for name in raw.column_names})
    events = frames.from_table(raw, gpu)
    with warnings.catch_warnings(), frames.lazy_copies():
        warnings.simplefilter("ignore")
        executor = Executor()
        sessions = frames.to_table(executor.transform(events, workflow.output_node))
    written.dropped.update(executor.dropped)
    if not len(sessions):
        return written
    written.sessions = len(sessions)
    written.events = pc.sum(pc.list_value_length(sessions.column(ITEM_ID))).as_py()
    by_tag = {
        tag: [name for name in workflow.output_schema.select_by_tag(tag).column_names if name != SESSION_ID]
        for tag in (Tags.CATEGORICAL, Tags.CONTINUOUS)
    }
    written.statistics.add(task.window, sessions, by_tag[Tags.CATEGORICAL], by_tag[Tags.CONTINUOUS])
    target = task.folder / f"{task.name}-{task.partition.number:05d}.parquet"
    path = unfinished(task.partition.folder / target.name)
    write_sessions(sessions, path)
    os.replace(path, target)
    return written


def write_sessions(sessions: pa.Table, path: Path) -> None:
    """Write a table of sessions as parquet."""
    pa.parquet.write_table(
        sessions,
        path,
        compression="zstd",
        compression_level=1,
        row_group_size=_ROW_GROUP,
        # Nobody filters by the smallest and largest value of a list, and building a dictionary takes half of the time.
        write_statistics=[SESSION_ID],
        use_dictionary=[f"{name}.list.element" for name in sessions.column_names if _repetitive(sessions.column(name))],
    )


def _repetitive(column: pa.ChunkedArray) -> bool:
    """Whether most values of a column of lists have been there before, by a look at its beginning."""
    if not pa.types.is_list(column.type):
        return False
    sample = column.slice(0, _SAMPLE_SESSIONS).combine_chunks().flatten()
    return len(sample) > 2 * pc.count_distinct(sample).as_py()


class Executor(LocalExecutor):
    """Runs each node of a graph once a data frame, and keeps count of the events that GroupSessions leaves out.

    Merlin's own runs a node anew for each node that needs its result.
    """

    def __init__(self) -> None:
        super().__init__()
        self._done: dict[int, Any] = {}
        self.dropped: dict[str, int] = {}

    def _execute_node(self, node: Any, transformable: Any, capture_dtypes: bool = False, strict: bool = False) -> Any:
        if id(node) not in self._done:
            self._done[id(node)] = super()._execute_node(node, transformable, capture_dtypes, strict)
        return self._done[id(node)]

    def _run_node_transform(
        self, node: Any, input_data: Any, capture_dtypes: bool = False, strict: bool = False
    ) -> Any:
        if not isinstance(node.op, GroupSessions):
            return super()._run_node_transform(node, input_data, capture_dtypes, strict)
        sessions, self.dropped = node.op.group(node.input_columns.resolve(node.input_schema), input_data)
        return sessions
