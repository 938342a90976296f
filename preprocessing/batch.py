"""The events of some files through a fitted workflow, divided into days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from common.progress import step
from preprocessing import frames
from preprocessing.cluster import Workers
from preprocessing.continuing import OPEN_FOR, Carried, DayPart, bounds, by_day, carry, iso_day
from preprocessing.day_parts import OPEN, Part, Source, name_of, open_events
from preprocessing.engine import ColumnSelector, nvtabular
from preprocessing.kernels import UNKNOWN
from preprocessing.preprocess import find_sessions, read_events
from preprocessing.shuffle import Partition, Spill, Spilled
from preprocessing.summary import raw_gaps
from preprocessing.transform import Transform, Written, transform
from preprocessing.workflow import item_encoder


@dataclass
class Batch:
    """What became of some files.

    Attributes
    ----------
    name : str
        Of its parts.
    facts : dict
        JSON: rows in and out, all days together.
    days : dict of str to dict
        ISO date -> what the part of that day says of itself, ascending.
    folder : Path
        Holds a folder a day with the files of its part: sessions, and in ``open/`` and ``quarantine/`` raw events.
    """

    name: str
    facts: dict[str, Any]
    days: dict[str, dict[str, Any]]
    folder: Path


def make_batch(
    job: Spill,
    workers: Workers,
    workflow: nvtabular.Workflow,
    features: Path,
    others: Sequence[Part],
    sources: tuple[Source, ...],
) -> Batch:
    """Read files, go on with sessions that were open, and transform, a partition at a time.

    Parameters
    ----------
    job : Spill
        The files; its folder is for scratch.
    workers : Workers
        Where to work.
    workflow : nvtabular.Workflow
        Fitted.
    features : Path
        The features folder, to read only.
    others : sequence of Part
        Of other batches.
    sources : tuple of Source
        The files' names and contents.

    Raises
    ------
    UserError
        When the events cannot be used; see `preprocessing.preprocess.gather`.
    """
    name, gap = name_of(sources), job.dataset.sessions.gap_ns or OPEN_FOR
    spilled = read_events(job, workers, job.folder, features)
    spans = workers.map(partial(bounds, job), range(job.partitions))
    begins, ends = min(begin for begin, _ in spans), max(end for _, end in spans)
    carried = _go_on(job, workers, open_events(features, others, ends, job.dataset.events.key), ends - gap)
    partitions = find_sessions(job, workers)
    divided = workers.map(partial(by_day, job, carried), [part for part in partitions if part.sessions])
    parts = [part for found, _ in divided for part in found]
    # The last day has a part even if no session ends there: it keeps what is open.
    days = sorted({*(part.day for part in parts), iso_day(ends)})
    made = job.folder / "made"
    for day in days:
        (made / day).mkdir(parents=True)
    tasks = [Transform(p.partition, 0, p.partition.sessions, made / p.day, p.day, f"part-{name}") for p in parts]
    with step("Writing sessions", total=sum(part.partition.events for part in parts)) as bar:
        written = transform(workflow, tasks, workers, job.folder, lambda result: bar.advance(result.seen))
        bar.say(f"{sum(result.sessions for result in written):,} sessions")
    _leave(job, made / iso_day(ends), name)
    facts = _facts(spilled, carried, partitions, written, sum(over for _, over in divided))
    facts["continued_sessions"] = sum(part.continued for part in parts)
    unknown, gaps = _unknown_items(job, workflow, parts), raw_gaps(written)
    described = {
        day: {
            "name": name,
            "sources": [vars(source) for source in sources],
            "begins": begins,
            "ends": ends,
            "sessions": sum(result.sessions for result in written if result.window == day),
            "events": sum(result.events for result in written if result.window == day),
            "continued_sessions": sum(part.continued for part in parts if part.day == day),
            "unknown_items": unknown[day],
            "raw": gaps.get(day, {"events": 0, "missing": {}}),
            "batch": facts,
        }
        for day in days
    }
    return Batch(name, facts, described, made)


def _go_on(job: Spill, workers: Workers, earlier: pa.Table | None, since: int) -> list[Carried]:
    path = None
    if earlier is not None:
        path = job.folder / "earlier.parquet"
        pa.parquet.write_table(earlier, path)
    with step("Going on with open sessions", total=job.partitions) as bar:
        carried = workers.map(partial(carry, job, path, since), range(job.partitions), lambda _: bar.advance())
        bar.say(f"{sum(len(found.keys) for found in carried):,} of them")
    return carried


def _leave(job: Spill, folder: Path, name: str) -> None:
    """What is open at the end, and the rows that cannot be used, go with the last day."""
    tables = [pa.parquet.read_table(path) for path in sorted(job.folder.glob("open-*.parquet"))]
    (folder / OPEN).mkdir()
    pa.parquet.write_table(pa.concat_tables(tables), folder / OPEN / f"{name}.parquet", compression="zstd")
    unusable = job.folder / "quarantine.parquet"
    if unusable.exists():
        (folder / "quarantine").mkdir()
        unusable.rename(folder / "quarantine" / f"{name}.parquet")


def _facts(
    spilled: Sequence[Spilled],
    carried: Sequence[Carried],
    partitions: Sequence[Partition],
    written: Sequence[Written],
    over: int,
) -> dict[str, Any]:
    dropped: Counter[str] = Counter({"of open sessions that did not go on": over})
    for losses in (part.dropped for kind in (spilled, partitions, written) for part in kind):
        dropped.update(losses)
    for chunk in spilled:
        dropped.update({f"unusable: {reason}": count for reason, count in chunk.bad.items()})
    return {
        "events_read": sum(result.read for result in spilled),
        "events_carried": sum(found.events for found in carried),
        "events_dropped": {reason: count for reason, count in dropped.items() if count},
        "events": sum(result.events for result in written),
        "sessions": sum(result.sessions for result in written),
    }


def _unknown_items(job: Spill, workflow: nvtabular.Workflow, parts: Sequence[DayPart]) -> Counter[str]:
    """Events of items that the workflow does not know, by day: all events, also those that are not written."""
    item, unknown = job.dataset.events.item, Counter[str]()
    encode = item_encoder(workflow, item)
    for part in parts:
        events = frames.from_table(part.partition.table(columns=[item]))
        codes = encode.transform(ColumnSelector([item]), events)[item].to_numpy()
        unknown[part.day] += int((codes == UNKNOWN).sum())
    return unknown
