"""The preprocessing stage: a data set's description in, a ``features/`` folder out."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from common.artefacts import new_folder
from common.progress import step
from preprocessing.engine import MerlinDataset, TensorflowMetadata, dd, nvtabular
from preprocessing.events import RawEvents, read_events
from preprocessing.kernels import UNITS
from preprocessing.settings import Dataset
from preprocessing.windows import WINDOWS, Windows, codes, split
from preprocessing.workflow import build, schema_of

_KIND = "features"
_ROW_GROUP = 65_536
_SAMPLE_SESSIONS = 500


def preprocess(dataset: Dataset, output: Path | str = "features", partition_events: int = 1_000_000) -> dict[str, Any]:
    """Turn raw events into sessions.

    The workflow is fitted on the training window only. The folder is replaced as a whole, or not at all.

    Parameters
    ----------
    dataset : Dataset
        The description, with ``data_root`` relative to the current folder or absolute.
    output : Path or str
        The folder to write: ``train/``, ``valid/``, ``test/`` (parquet, one row a session), ``schema.pbtxt``,
        ``workflow/`` (fitted), ``request.json`` (how clients send events), ``sample.parquet`` (raw events of some test
        sessions, as a client sends them) and ``manifest.json``.
    partition_events : int
        Events a partition, roughly.

    Returns
    -------
    dict
        The report: events read, dropped by reason, kept; sessions, events and first moment of each window;
        items in the catalogue.

    Raises
    ------
    UserError
        When the events cannot be used; see `preprocessing.events.read_events` and `preprocessing.windows.split`.
    """
    settings = dataset.model_dump(mode="json", include=set(Dataset.model_fields) - {"data_root"})
    with new_folder(output, _KIND, settings) as folder, TemporaryDirectory() as scratch:
        raw = read_events(dataset)
        windows = split(raw.table, dataset, partition_events)
        workflow = _fit(dataset, raw, windows, Path(scratch))
        _write_windows(workflow, raw.table, windows, folder.path)
        schema = schema_of(workflow)
        TensorflowMetadata.from_merlin_schema(schema).to_proto_text_file(str(folder.path))
        workflow.save(str(folder.path / "workflow"))
        (folder.path / "request.json").write_text(json.dumps(_request(dataset, raw), indent=2) + "\n", encoding="utf-8")
        pa.parquet.write_table(_sample(dataset, raw, windows), folder.path / "sample.parquet", compression="zstd")
        domain = schema["item_id"].properties["domain"]
        reserved = schema["item_id"].properties["reserved_ids"]
        folder.report |= {
            "events_read": raw.read,
            "events_dropped": raw.dropped | windows.dropped,
            "events": sum(windows.events.values()),
            "sessions": sum(windows.sessions.values()),
            "items": int(domain["max"]) + 1 - int(reserved),
            "windows": {
                name: {
                    "begins": windows.begins[name],
                    "sessions": windows.sessions[name],
                    "events": windows.events[name],
                }
                for name in WINDOWS
            },
        }
    return folder.report


def load_workflow(features: Path | str) -> nvtabular.Workflow:
    """Load the fitted workflow of a features folder.

    A saved workflow is a pickle, which runs code when it is read: call this only on a folder whose manifest was
    verified (`common.artefacts.read_manifest`).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nvtabular.Workflow.load(str(Path(features) / "workflow"))


def _fit(dataset: Dataset, raw: RawEvents, windows: Windows, scratch: Path) -> nvtabular.Workflow:
    workflow = build(dataset, scratch)
    with step("Fitting the workflow on the training window") as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [
            dd.from_pandas(raw.table.take(pa.array(rows)).to_pandas(), npartitions=1) for rows in windows.rows["train"]
        ]
        workflow.fit(MerlinDataset(dd.concat(parts) if len(parts) > 1 else parts[0]))
        bar.say(f"{windows.events['train']:,} events")
    return workflow


def _write_windows(workflow: nvtabular.Workflow, table: pa.Table, windows: Windows, path: Path) -> None:
    total = sum(len(parts) for parts in windows.rows.values())
    with step("Writing sessions", total=total) as bar:
        for window, parts in windows.rows.items():
            (path / window).mkdir()
            for number, rows in enumerate(parts):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    sessions = workflow.transform(table.take(pa.array(rows)).to_pandas())
                arrow = pa.Table.from_pandas(sessions, preserve_index=False).replace_schema_metadata(None)
                target = path / window / f"part-{number:05d}.parquet"
                pa.parquet.write_table(arrow, target, compression="zstd", row_group_size=_ROW_GROUP)
                bar.advance()
        bar.say(f"{sum(windows.sessions.values()):,} sessions")


def _request(dataset: Dataset, raw: RawEvents) -> dict[str, Any]:
    """How a client sends events: the part of the contract that the workflow does not know."""
    events = dataset.events
    time = {"unit": None if raw.time_is_text else events.time.unit, "format": events.time.format}
    roles = {events.key: "session", events.item: "item", events.time.column: "time"}
    if events.order:
        roles[events.order] = "order"
    columns = []
    for name in dataset.columns():
        kind = "BYTES" if name == events.time.column and raw.time_is_text else raw.wire[name]
        columns.append({"name": name, "type": kind, "role": roles.get(name, "feature")})
    return {"columns": columns, "time": time}


def _sample(dataset: Dataset, raw: RawEvents, windows: Windows) -> pa.Table:
    """Raw events of the first test sessions as clients send them: for load tests, and to try the server."""
    rows = windows.rows["test"][0]
    key = codes(raw.table.column(dataset.events.key).take(pa.array(rows)))
    table = raw.table.take(pa.array(rows[key < _SAMPLE_SESSIONS]))
    time = dataset.events.time
    position = table.column_names.index(time.column)
    moments = table.column(time.column).to_numpy()
    if raw.time_is_text:
        stamps = pd.Series(moments.astype("datetime64[ns]"))
        values = stamps.dt.strftime(time.format) if time.format else stamps.map(pd.Timestamp.isoformat)
        wire = pa.array(values, pa.string())
    else:
        wire = pa.array(moments // UNITS[time.unit or "ns"])
    return table.set_column(position, time.column, wire)
