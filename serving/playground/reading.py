"""Read the catalogue of the page from the raw events, or from the sample beside the features."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.artefacts import read_manifest
from common.errors import UserError
from preprocessing.contract import agree
from preprocessing.events import clean
from preprocessing.files import blocks, expand
from preprocessing.settings import Dataset
from serving.playground.catalogue import Catalogue, Click

_EVENTS, _ROW = "_events", "_row"
_BLOCK = 500_000
_MOST_COUNTED = 10_000


def read_catalogue(features: Path, events: str | None = None) -> tuple[Catalogue, str]:
    """Read the items from the raw events, or where these are not at hand from the sample beside the features.

    Parameters
    ----------
    features : Path
        The folder that ``nextitem preprocess`` wrote.
    events : str, optional
        Pattern of the event files. By default the description's own patterns are looked for beside the folder and
        in the working directory.

    Returns
    -------
    catalogue, source : Catalogue, str
        And where the items are from, in words.

    Raises
    ------
    UserError
        When the folder is no features folder, or the event files do not fit it.
    """
    manifest = read_manifest(features, "features", "nextitem preprocess", verify=False)
    dataset = Dataset.model_validate(manifest["settings"])
    request = json.loads((features / "request.json").read_text(encoding="utf-8"))
    sample = [features / "sample.parquet"]
    paths, source = _event_files(dataset, features, events), f"{features.name}/sample.parquet"
    if paths:
        source = str(paths[0]) if len(paths) == 1 else f"{len(paths)} event files"
    # The sample went through the filters already, and need not have their columns.
    plain = dataset.model_copy(update={"events": dataset.events.model_copy(update={"where": {}})})
    few = list(_clean(plain, request, sample))
    read = _clean(dataset, request, paths) if paths else few
    latest, counts = _latest(dataset, read)
    if not len(latest):
        raise UserError(f"{source} holds no event that can be used: name others with --events")
    sessions = _sessions(dataset, pa.concat_tables(few), list(counts))
    return Catalogue(dataset, request, latest, counts, sessions), source


def _event_files(dataset: Dataset, features: Path, events: str | None) -> list[Path]:
    if events is not None:
        return expand(Path(), [events])
    for root in (features.parent, Path()):
        try:
            return expand(root, dataset.events.files)
        except UserError:
            continue
    return []


def _clean(dataset: Dataset, request: Mapping[str, Any], paths: Sequence[Path]) -> Iterator[pa.Table]:
    wire = {column["name"]: column["type"] for column in request["columns"]}
    contract = agree(dataset, paths, _BLOCK, wire)
    wanted = list(dict.fromkeys([*dataset.columns(), *dataset.events.where]))
    types = contract.types | {dataset.events.time.column: pa.int64()}
    schema = pa.schema([(name, types[name]) for name in dataset.columns()])
    for chunk in contract.chunks:
        for block in blocks(chunk, wanted, _BLOCK, lambda line, text: None):
            yield clean(block, dataset, contract, chunk.path, 0).table.select(schema.names).cast(schema)


def _latest(dataset: Dataset, tables: Iterable[pa.Table]) -> tuple[pa.Table, dict[str, Counter[Any]]]:
    """One row an item, by falling number of events, and how often each value of the event's own columns was seen."""
    counts: dict[str, Counter[Any]] = {entry.column: Counter() for entry in dataset.features.event.categorical}
    merged: pa.Table | None = None
    for table in tables:
        for name, seen in counts.items():
            # Of queries, say, there is no end; the first ones hold the frequent ones.
            if len(seen) < _MOST_COUNTED:
                pairs = pc.value_counts(table.column(name).drop_null()).to_pylist()
                seen.update({pair["values"]: pair["counts"] for pair in pairs})
        table = table.append_column(_EVENTS, pa.array(np.ones(len(table), np.int64)))
        merged = _reduce(dataset, table if merged is None else pa.concat_tables([merged, table]))
    assert merged is not None
    order = pc.sort_indices(merged, [(_EVENTS, "descending"), (dataset.events.item, "ascending")])
    return merged.take(order), counts


def _reduce(dataset: Dataset, table: pa.Table) -> pa.Table:
    item, time = dataset.events.item, dataset.events.time.column
    table = table.take(pc.sort_indices(table, [(time, "ascending")]))
    table = table.append_column(_ROW, pa.array(np.arange(len(table))))
    groups = table.group_by(item).aggregate([(_ROW, "max"), (_EVENTS, "sum")])
    rows = table.take(groups.column(f"{_ROW}_max")).drop_columns([_ROW, _EVENTS])
    return rows.append_column(_EVENTS, groups.column(f"{_EVENTS}_sum"))


def _sessions(dataset: Dataset, sample: pa.Table, own: Sequence[str]) -> list[list[Click]]:
    events = dataset.events
    found: dict[Any, list[Click]] = {}
    began: dict[Any, int] = {}
    keys = [events.time.column, *([events.order] if events.order else [])]
    for event in sample.sort_by([(key, "ascending") for key in keys]).to_pylist():
        key, time = event[events.key], event[events.time.column]
        after = (time - began.setdefault(key, time)) / 1e9
        found.setdefault(key, []).append(
            Click(str(event[events.item]), after, {name: str(event[name]) for name in own})
        )
    return [clicks[-dataset.sessions.max_length :] for clicks in found.values()]
