"""The preprocessing stage: a data set's description in, a ``features/`` folder out."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from common.artefacts import new_folder
from common.days import refuse_days
from common.errors import UserError
from common.progress import Bar, step
from preprocessing.cluster import Workers
from preprocessing.contract import agree
from preprocessing.engine import TensorflowMetadata, nvtabular
from preprocessing.files import expand
from preprocessing.kernels import RESERVED
from preprocessing.request import SAMPLE_SESSIONS, request_of, sample_of
from preprocessing.settings import Dataset
from preprocessing.shuffle import Partition, Spill, Spilled, arrange, spill
from preprocessing.summary import summarise
from preprocessing.transform import Transform, Written, fit, transform
from preprocessing.vectors import write_vectors
from preprocessing.windows import WINDOWS, Windows, split
from preprocessing.workflow import build, item_encoder, schema_of

_KIND = "features"
PARTITION_EVENTS = 2_000_000
# So many values, 8 bytes each and copied once while they are sorted, stay in memory between the steps.
_IN_MEMORY = 80_000_000


def preprocess(
    dataset: Dataset,
    output: Path | str = "features",
    partition_events: int = PARTITION_EVENTS,
    cluster: str | None = None,
    refit: bool = False,
) -> dict[str, Any]:
    """Turn raw events into sessions.

    The workflow is fitted on the training window only. The folder is replaced as a whole, or not at all. Memory is
    bounded by the size of a partition, whatever the total; scratch files beside the output take some 16 bytes a value.

    Parameters
    ----------
    dataset : Dataset
        The description, with ``data_root`` relative to the current folder or absolute.
    output : Path or str
        The folder to write: ``train/``, ``valid/``, ``test/`` (parquet, one row a session), ``schema.pbtxt``,
        ``workflow/`` (fitted), ``request.json`` (how clients send events), ``sample.parquet`` (raw events of some test
        sessions, as a client sends them), ``report.html``, ``quarantine.parquet`` where there are rows that cannot be
        used, and ``manifest.json``.
    partition_events : int
        Events a partition, roughly. It changes which file a session is in, nothing else.
    cluster : str, optional
        Where to work: see `preprocessing.cluster.Workers`.
    refit : bool
        Replace features that days were appended to; the days go with them.

    Returns
    -------
    dict
        The report: events read, dropped by reason, kept; sessions, events and first moment of each window;
        items in the catalogue; the data's statistics.

    Raises
    ------
    UserError
        When the events cannot be used; see `preprocessing.contract.agree`, `gather` and `preprocessing.windows.split`.
        When days were appended to the folder, without `refit`.
    """
    settings = dataset.model_dump(mode="json", include=set(Dataset.model_fields) - {"data_root"})
    # Workers of a cluster may run in another folder.
    output, root = Path(output).absolute(), dataset.data_root.absolute()
    refuse_days(output, refit)
    with (
        Workers(cluster) as workers,
        new_folder(output, _KIND, settings) as folder,
        # Inside the unfinished output, which the next run clears away if this one is killed.
        TemporaryDirectory(prefix="scratch-", dir=folder.path, ignore_cleanup_errors=True) as scratch,
    ):
        unfitted = build(dataset)
        contract = agree(dataset, expand(root, dataset.events.files), partition_events)
        count = max(1, -(-contract.rows // partition_events))
        small = workers.local and contract.rows * len(contract.types) <= _IN_MEMORY
        job = Spill(dataset, contract, Path(scratch), count, held={} if small else None)
        spilled, partitions = gather(job, workers, folder.path, output)
        windows = split(partitions, dataset)
        with step("Fitting the workflow on the training window") as bar:
            workflow = fit(unfitted, partitions, windows, workers)
            bar.say(f"{len(partitions)} partition{'s' if len(partitions) > 1 else ''}")
        written = _write(workflow, partitions, windows, workers, folder.path, Path(scratch))
        schema = schema_of(workflow)
        TensorflowMetadata.from_merlin_schema(schema).to_proto_text_file(str(folder.path))
        workflow.save(str(folder.path / "workflow"))
        request = json.dumps(request_of(dataset, contract), indent=2)
        (folder.path / "request.json").write_text(request + "\n", encoding="utf-8")
        sample = sample_of(dataset, contract, _test_events(partitions, windows))
        pa.parquet.write_table(sample, folder.path / "sample.parquet", compression="zstd")
        encode = item_encoder(workflow, dataset.events.item)
        folder.report |= summarise(encode, dataset.events.item, spilled, partitions, windows, written)
        if dataset.features.vectors:
            folder.report["vectors"] = write_vectors(dataset, encode.values[dataset.events.item], RESERVED, folder.path)
        _draw(folder.path, dataset.name, folder.report)
    return folder.report


def gather(job: Spill, workers: Workers, folder: Path, output: Path) -> tuple[list[Spilled], list[Partition]]:
    """Read all events into partitions of whole sessions, and write ``quarantine.parquet`` if there are bad rows.

    Raises
    ------
    UserError
        When more rows than ``events.max_bad_share`` cannot be used (they are kept beside `output`), or none is left.
    """
    spilled = read_events(job, workers, folder, output)
    return spilled, find_sessions(job, workers)


def read_events(job: Spill, workers: Workers, folder: Path, output: Path) -> list[Spilled]:
    """The first half of `gather`: files into partitions."""
    contract = job.contract
    files = len({chunk.path for chunk in contract.chunks})
    with step(f"Reading {files} file{'s' if files > 1 else ''} of events", total=contract.rows) as bar:
        rate = _Rate(bar)
        chunks = list(enumerate(contract.chunks))
        spilled = workers.map(partial(_spill, job), chunks, lambda result: rate.add(result.read))
        bar.say(f"{contract.rows:,} events, {rate}")
    _quarantine(job, spilled, folder, output)
    return spilled


def find_sessions(job: Spill, workers: Workers) -> list[Partition]:
    """The second half of `gather`: each partition sorted into sessions; some may hold none."""
    with step("Finding the sessions", total=job.partitions) as bar:
        partitions = workers.map(partial(arrange, job), range(job.partitions), lambda _: bar.advance())
        bar.say(f"{sum(partition.sessions for partition in partitions):,} sessions")
    return partitions


def _spill(job: Spill, numbered: tuple[int, Any]) -> Spilled:
    return spill(job, *numbered)


def _quarantine(job: Spill, spilled: Sequence[Spilled], folder: Path, output: Path) -> None:
    read, bad = sum(result.read for result in spilled), sum(result.bad.total() for result in spilled)
    limit = job.dataset.events.max_bad_share
    good = read - bad - sum(result.dropped.total() for result in spilled)
    beside = output.parent / f"{output.name}.quarantine.parquet"
    # Of an earlier run that failed.
    beside.unlink(missing_ok=True)
    if bad:
        tables = [pa.parquet.read_table(path) for path in sorted(job.folder.glob("bad-*.parquet"))]
        path = beside if bad > limit * read else folder / "quarantine.parquet"
        pa.parquet.write_table(pa.concat_tables(tables), path, compression="zstd")
        if bad > limit * read:
            example = next(result.example for result in spilled if result.example)
            raise UserError(
                f"{example}; {bad:,} of {read:,} rows ({bad / read:.2%}) cannot be used, more than "
                f"events.max_bad_share {limit:.2%}: correct them, or raise it ({path} lists them with reasons)"
            )
    if not good:
        raise UserError(
            f"{job.contract.chunks[0].path if job.contract.chunks else job.dataset.name}: no event is left of {read} "
            "after events.where: loosen the filters"
        )


def _write(
    workflow: nvtabular.Workflow,
    partitions: Sequence[Partition],
    windows: Windows,
    workers: Workers,
    folder: Path,
    scratch: Path,
) -> list[Written]:
    for window in WINDOWS:
        (folder / window).mkdir()
    tasks = [
        Transform(partition, *windows.range(partition, window), folder / window, window)
        for partition in partitions
        for window in WINDOWS
    ]
    with step("Writing sessions", total=sum(partition.events for partition in partitions)) as bar:
        rate = _Rate(bar)
        written = transform(workflow, tasks, workers, scratch, lambda result: rate.add(result.seen))
        bar.say(f"{sum(result.sessions for result in written):,} sessions, {rate}")
    for window in WINDOWS:
        if not any(result.sessions for result in written if result.window == window):
            raise UserError(f"the {window} window holds no session of known items: change split or sessions")
    return written


def _test_events(partitions: Sequence[Partition], windows: Windows) -> pa.Table:
    """Raw events of the first test sessions, oldest partition first."""
    tables, wanted = [], SAMPLE_SESSIONS
    for partition in partitions:
        begin, end = windows.range(partition, "test")
        end = min(end, begin + wanted)
        offsets = partition.offsets()
        if end > begin:
            tables.append(partition.table(int(offsets[begin]), int(offsets[end])))
        wanted -= end - begin
        if not wanted:
            break
    return pa.concat_tables(tables)


def _draw(folder: Path, name: str, report: dict[str, Any]) -> None:
    from preprocessing.report import write_report

    with step("Drawing the report"):
        write_report(folder / "report.html", name, report)


def load_workflow(features: Path | str) -> nvtabular.Workflow:
    """Load the fitted workflow of a features folder.

    A saved workflow is a pickle, which runs code when it is read: call this only on a folder whose manifest was
    verified (`common.artefacts.read_manifest`).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nvtabular.Workflow.load(str(Path(features) / "workflow"))


class _Rate:
    """Counts events on a bar and says how many a second."""

    def __init__(self, bar: Bar) -> None:
        self.bar, self.began, self.events = bar, time.perf_counter(), 0

    def add(self, events: int) -> None:
        """Count more events as done."""
        self.events += events
        self.bar.advance(events)
        self.bar.say(str(self))

    def __str__(self) -> str:
        return f"{self.events / max(time.perf_counter() - self.began, 1e-6):,.0f} events/s"
