"""The NVTabular graph of a data set: which operator makes which feature, and the schema that follows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing import operators
from preprocessing.engine import Schema, Tags, nvtabular, ops
from preprocessing.feature_settings import Columns
from preprocessing.kernels import RESERVED
from preprocessing.settings import ITEM_ID, SESSION_ID, Dataset

# Standard deviations; what lies farther out says no more than that it is extreme.
_OUTLIER = 10.0


def build(dataset: Dataset, statistics: Path) -> nvtabular.Workflow:
    """Build the unfitted workflow of a data set.

    Parameters
    ----------
    dataset : Dataset
        The description.
    statistics : Path
        A folder for the category tables that Categorify writes while it is fitted.

    Returns
    -------
    nvtabular.Workflow
        Takes the raw columns (`Dataset.columns`, time as int64 nanoseconds) of whole sessions and gives one row a
        session: ``session_id`` and a list column for ``item_id`` and for each feature.
    """
    events, rules = dataset.events, dataset.sessions
    with warnings.catch_warnings():
        # Items are never split into hash buckets, so Categorify's remarks on hashing do not apply.
        warnings.simplefilter("ignore")
        item = [events.item] >> ops.Categorify(out_path=str(statistics)) >> ops.Rename(name=ITEM_ID)
        outputs: Any = item
        for columns, tag in ((dataset.features.item, Tags.ITEM), (dataset.features.event, Tags.CONTEXT)):
            for part in _features(columns, tag, statistics):
                outputs = outputs + part
        for period in dataset.features.time:
            if period == "age":
                age = (item + events.time.column) >> operators.ItemAge()
                outputs = outputs + _normalise(age >> ops.LogOp())
            else:
                outputs = outputs + ([events.time.column] >> operators.CyclicTime(period))
        keys = {operators.SESSION: events.key, operators.ITEM: events.item, operators.TIME: events.time.column}
        if events.order:
            keys[operators.ORDER] = events.order
        for name, column in keys.items():
            outputs = outputs + ([column] >> ops.Rename(name=name))
        sessions = outputs >> operators.GroupSessions(rules.max_length, rules.gap_ns, rules.collapse_repeats)
        return nvtabular.Workflow(sessions)


def _features(columns: Columns, tag: Tags, statistics: Path) -> list[Any]:
    parts: list[Any] = []
    if columns.categorical:
        parts.append(columns.categorical >> ops.Categorify(out_path=str(statistics)) >> ops.AddMetadata(tags=[tag]))
    plain, logged = ([c.column for c in columns.continuous if c.log is log] for log in (False, True))
    if plain:
        parts.append(_normalise(plain) >> ops.AddMetadata(tags=[tag]))
    if logged:
        parts.append(_normalise(logged >> ops.Clip(min_value=0) >> ops.LogOp()) >> ops.AddMetadata(tags=[tag]))
    return parts


def _normalise(node: Any) -> Any:
    """Mean 0 and deviation 1, bounded, the missing at the mean."""
    normalised = node >> ops.Normalize(out_dtype=np.float32)
    return normalised >> ops.Clip(min_value=-_OUTLIER, max_value=_OUTLIER) >> ops.FillMissing(fill_val=0)


def schema_of(workflow: nvtabular.Workflow) -> Schema:
    """The contract with the model: the fitted workflow's output schema, without paths of this machine.

    Categorical columns get the property ``reserved_ids``: how many of the lowest codes name no known value
    (padding, null, unknown).
    """
    kept = ("domain", "value_count", "embedding_sizes")
    columns = []
    for column in workflow.output_schema:
        properties = {key: value for key, value in column.properties.items() if key in kept}
        if Tags.CATEGORICAL in column.tags and column.name != SESSION_ID:
            properties["reserved_ids"] = RESERVED
        columns.append(
            column.__class__(
                column.name,
                dtype=column.dtype,
                tags=column.tags,
                properties=properties,
                is_list=column.is_list,
                is_ragged=column.is_ragged,
            )
        )
    return Schema(columns)
