"""Rank and metrics of every session as parquet, for paired comparisons between runs.

| column | type | |
|---|---|---|
| ``session_id`` | as in the features | where these have it |
| ``events_seen`` | int64 | events that the model saw before the target |
| ``item`` | int64 | the target's id |
| ``model.rank`` | double | infinite where the target is struck |
| ``model.recall@10`` ... | double | a column a metric; the same for each baseline |

Rows come in the order of the features. Where a session was not measured (its target is unknown in training, or it has
one event) ranks and metrics are null.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from common.days import window_files
from common.errors import UserError
from modeling.evaluation.bootstrap import intervals
from modeling.evaluation.scoring import Targets
from modeling.ranking_metric import metrics_by_row

SESSION_ID = "session_id"


def session_table(
    ranks: Mapping[str, Tensor], targets: Targets, ks: Sequence[int], ids: pa.ChunkedArray | None = None
) -> pa.Table:
    """The table that the file holds.

    Parameters
    ----------
    ranks : mapping of Tensor [S]
        As `modeling.evaluation.ranks` returns them, by model.
    targets : Targets
        Of the same sessions.
    ks : sequence of int
        Cut-offs of the metrics.
    ids : pyarrow.ChunkedArray [S], optional
        The sessions' own ids.
    """
    columns: dict[str, Any] = {} if ids is None else {SESSION_ID: ids}
    columns |= {"events_seen": pa.array(targets.seen.numpy()), "item": pa.array(targets.item.numpy())}
    for model, own in ranks.items():
        missing = own.isnan().numpy()
        for name, value in {"rank": own.double(), **metrics_by_row(own, ks)}.items():
            columns[f"{model}.{name}"] = pa.array(value.numpy(), mask=missing)
    return pa.table(columns)


def read_session_ids(features: Path | str, window: str) -> pa.ChunkedArray | None:
    """The ids of a window's sessions in the order of `modeling.data.read_sessions`, where its files have them."""
    files = [pq.ParquetFile(file) for file in window_files(features, window)]
    if not all(SESSION_ID in file.schema_arrow.names for file in files):
        return None
    return pa.concat_tables([file.read([SESSION_ID]) for file in files]).column(SESSION_ID)


def write_table(table: pa.Table, path: Path | str) -> None:
    """Write it; a file that is there is replaced only when the new one is whole.

    Raises
    ------
    UserError
        When it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        pq.write_table(table, partial)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def read_table(path: Path | str) -> pa.Table:
    """Read what `write_table` wrote.

    Raises
    ------
    UserError
        When it is no such file.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from error
    if not {"item", "model.rank"} <= set(table.column_names):
        raise UserError(f"{path} was not written by 'nextitem evaluate --sessions-file'")
    return table


def compare(
    table: pa.Table, other: pa.Table, ks: Sequence[int] = (10, 20), model: str = "model", where: str = "the other table"
) -> dict[str, Any]:
    """How much better a model is than one that was evaluated before, on the same sessions.

    Parameters
    ----------
    table, other : pyarrow.Table
        Of this model and the other, as `session_table` makes them: the same sessions in the same order.
    ks : sequence of int
        Cut-offs. Metrics are made of the ranks, so any will do.
    model : str
        Which one of both.
    where : str
        What the other is called in errors.

    Returns
    -------
    dict
        ``{"sessions": number, "differences": {"ndcg@20": {"mean", "low", "high"}, ...}}``; positive where this one is
        better. Sessions that either did not measure are left out.

    Raises
    ------
    UserError
        When they are not of the same sessions, or none of them was measured by both.
    """
    keys = [name for name in (SESSION_ID, "item") if name in table.column_names and name in other.column_names]
    if len(table) != len(other) or not table.select(keys).equals(other.select(keys)):
        raise UserError(f"{where} is not of the same sessions: evaluate both models on the same features and window")
    ranks = [torch.from_numpy(one.column(f"{model}.rank").to_numpy().copy()) for one in (table, other)]
    both = ~(ranks[0].isnan() | ranks[1].isnan())
    if not bool(both.any()):
        raise UserError(f"{where} measured none of the sessions that this model was measured on")
    mine, theirs = (metrics_by_row(own[both], ks) for own in ranks)
    return {"sessions": int(both.sum()), "differences": intervals({m: mine[m] - theirs[m] for m in mine})}
