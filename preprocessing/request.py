"""How a client sends events: the part of the contract with the server that the workflow does not know."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa

from preprocessing.contract import Contract
from preprocessing.kernels import UNITS
from preprocessing.settings import Dataset

SAMPLE_SESSIONS = 500


def request_of(dataset: Dataset, contract: Contract) -> dict[str, Any]:
    """The content of ``request.json``: name, wire type and role of each column, and how time is written."""
    events, wire = dataset.events, contract.wire()
    text = wire[events.time.column] == "BYTES"
    time = {"unit": None if text else events.time.unit, "format": events.time.format}
    roles = {events.key: "session", events.item: "item", events.time.column: "time"}
    if events.order:
        roles[events.order] = "order"
    columns = [{"name": name, "type": wire[name], "role": roles.get(name, "feature")} for name in dataset.columns()]
    return {"columns": columns, "time": time}


def sample_of(dataset: Dataset, contract: Contract, table: pa.Table) -> pa.Table:
    """Events as clients send them, time as it came: for load tests, and to try the server."""
    time = dataset.events.time
    position = table.column_names.index(time.column)
    moments = table.column(time.column).to_numpy()
    if contract.wire()[time.column] == "BYTES":
        stamps = pd.Series(moments.astype("datetime64[ns]"))
        values = stamps.dt.strftime(time.format) if time.format else stamps.map(pd.Timestamp.isoformat)
        wire = pa.array(values, pa.string())
    else:
        wire = pa.array(moments // UNITS[time.unit or "ns"])
    return table.set_column(position, time.column, wire)
