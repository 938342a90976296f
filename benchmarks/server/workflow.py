"""The same features by stock NVTabular operators, as merlin-systems' own examples build them.

Categories get the codes that ours have: `Categorify` takes vocabularies, which also spares it the fitting. So the same
TorchScript fits both workflows, and their recommendations can be compared.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.server import HOUR_MS, MAX_LENGTH
from preprocessing.engine import ColumnSelector, MerlinDataset, nvtabular, ops
from preprocessing.operators import Encode
from preprocessing.workflow import operators_of

_OUTLIER = 10.0


def fit(ours: nvtabular.Workflow, events: pa.Table, scratch: Path) -> nvtabular.Workflow:
    """Build the stock workflow and fit it.

    Parameters
    ----------
    ours : nvtabular.Workflow
        Fitted on the same events; gives the vocabularies.
    events : pyarrow.Table
        The training events.
    scratch : Path
        Keeps the vocabularies until the workflow is saved.
    """
    known = {name: values for op in operators_of(ours) if isinstance(op, Encode) for name, values in op.values.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        workflow = _build(
            {name: pd.Series(values.to_pylist(), dtype="object") for name, values in known.items()}, scratch
        )
        return workflow.fit(MerlinDataset(events.to_pandas()))


def _build(vocabularies: dict[str, pd.Series], scratch: Path) -> nvtabular.Workflow:
    coded = list(vocabularies) >> ops.Categorify(vocabs=vocabularies, out_path=str(scratch))
    price = ["price"] >> ops.Clip(min_value=0) >> ops.LogOp() >> ops.Normalize(out_dtype=np.float32)
    price = price >> ops.Clip(min_value=-_OUTLIER, max_value=_OUTLIER) >> ops.FillMissing(fill_val=0)
    # Lambdas travel inside the saved workflow; functions of this module would have to be installed in the server.
    angle = 2 * np.pi / (24 * HOUR_MS)
    day = 24 * HOUR_MS
    sine = ["time"] >> ops.LambdaOp(lambda time: np.sin((time % day) * angle).astype(np.float32), dtype=np.float32)
    cosine = ["time"] >> ops.LambdaOp(lambda time: np.cos((time % day) * angle).astype(np.float32), dtype=np.float32)
    rows = coded + price + (sine >> ops.Rename(name="hour_sin")) + (cosine >> ops.Rename(name="hour_cos"))
    features = [*vocabularies, "price", "hour_sin", "hour_cos"]
    grouped = (rows + ColumnSelector(["session_id", "time"])) >> ops.Groupby(
        groupby_cols=["session_id"], sort_cols=["time"], aggs=dict.fromkeys(features, "list")
    )
    # Without the sessions' ids: NVTabular runs what lies before a node once for every node behind it, so handing
    # them on would double the work. Answers are in the order of the ids.
    lists = grouped[[f"{name}_list" for name in features]] >> ops.ListSlice(-MAX_LENGTH)
    return nvtabular.Workflow(lists >> ops.Rename(f=lambda name: name.removesuffix("_list")))
