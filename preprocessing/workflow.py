"""The NVTabular graph of a data set: which operator makes which feature, and the schema that follows."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import numpy as np

from preprocessing import operators
from preprocessing.engine import Node, Schema, Tags, nvtabular, ops, postorder_iter_nodes
from preprocessing.feature_settings import Categorical, Columns
from preprocessing.kernels import RESERVED
from preprocessing.settings import ITEM_ID, SESSION_ID, Dataset
from preprocessing.tables import read_joins

# Standard deviations; what lies farther out says no more than that it is extreme.
_OUTLIER = 10.0


def build(dataset: Dataset) -> nvtabular.Workflow:
    """Build the unfitted workflow of a data set.

    Parameters
    ----------
    dataset : Dataset
        The description. The tables that it joins are read.

    Returns
    -------
    nvtabular.Workflow
        Takes the raw columns (`Dataset.columns`, time as int64 nanoseconds) of whole sessions and gives one row a
        session: ``session_id`` and a list column for ``item_id`` and for each feature.

    Raises
    ------
    UserError
        When a joined table cannot be used; see `preprocessing.tables.read_joins`.
    """
    return nvtabular.Workflow(_Graph(dataset).sessions())


class _Graph:
    """The nodes of one data set; what several features are made of is one node."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.events, self.rules = dataset, dataset.events, dataset.sessions
        self.encoded_item = [self.events.item] >> operators.Encode(self.rules.min_item_count)
        self.item = self.encoded_item >> ops.Rename(name=ITEM_ID)
        self.tables: dict[str, Any] = {}
        for joined in read_joins(dataset):
            node = [joined.on] >> operators.JoinTable(joined)
            self.tables |= dict.fromkeys(node.op.columns, node)
        features = dataset.features
        # Codes that other features are made of, whether the model sees them or not.
        self.shared = {*features.frequency, *(entry.to for entry in features.relative)}
        self.codes: dict[str, Any] = {self.events.item: self.encoded_item}

    def sessions(self) -> Any:
        """The last node."""
        outputs: Any = self.item
        for part in self._parts():
            outputs = outputs + part
        events, rules = self.events, self.rules
        keys = {operators.SESSION: events.key, operators.ITEM: events.item, operators.TIME: events.time.column}
        if events.order:
            keys[operators.ORDER] = events.order
        for name, column in keys.items():
            outputs = outputs + ([column] >> ops.Rename(name=name))
        drop = rules.unknown_items == "drop"
        return outputs >> operators.GroupSessions(
            rules.max_length, rules.gap_ns, rules.collapse_repeats, drop, rules.min_length if drop else 1
        )

    def _parts(self) -> list[Any]:
        features, parts, numbers = self.dataset.features, [], []
        for columns, tag in ((features.item, Tags.ITEM), (features.event, Tags.CONTEXT)):
            parts += [part >> ops.AddMetadata(tags=[tag]) for part in self._columns(columns)]
        for period in features.time:
            if period == "age":
                age = (self.item + self.events.time.column) >> operators.ItemAge()
                numbers.append(age >> ops.LogOp())
            elif period == "since_previous":
                numbers.append(self._since_previous())
            else:
                parts.append([self.events.time.column] >> operators.CyclicTime(period))
        for entry in features.relative:
            pair = self._raw([entry.column]) + self._encoded(entry.to)
            numbers.append(pair >> operators.Relative(entry.name, entry.log))
        for column in features.frequency:
            numbers.append(self._encoded(column) >> operators.Frequency())
        if numbers:
            # Together: every statistic of its own is one more pass over what lies before it.
            parts.append(_normalise(reduce(add, numbers)))
        return parts

    def _columns(self, columns: Columns) -> list[Any]:
        parts = []
        for entry in columns.categorical:
            if _plain(entry) and entry.column in self.shared:
                parts.append(self._encoded(entry.column))
            elif entry.hash:
                parts.append(self._raw([entry.column]) >> operators.HashBuckets(entry.hash))
            elif not _plain(entry):
                parts.append(self._raw([entry.column]) >> operators.Encode(entry.min_count, buckets=entry.buckets))
        plain = [entry.column for entry in columns.categorical if _plain(entry) and entry.column not in self.shared]
        if plain:
            parts.append(self._raw(plain) >> operators.Encode())
        level, logged = ([c.column for c in columns.continuous if c.log is log] for log in (False, True))
        if level:
            parts.append(_normalise(self._raw(level)))
        if logged:
            parts.append(_normalise(self._raw(logged) >> ops.Clip(min_value=0) >> ops.LogOp()))
        return parts

    def _raw(self, names: list[str]) -> Any:
        """Columns of the events and of tables."""
        of_events = [name for name in names if name not in self.tables]
        found: Any = Node(of_events) if of_events else None
        for node in dict.fromkeys(self.tables[name] for name in names if name in self.tables):
            chosen = node[[name for name in names if self.tables.get(name) is node]]
            found = chosen if found is None else found + chosen
        return found

    def _encoded(self, column: str) -> Any:
        """A column's codes, every value known."""
        if column not in self.codes:
            self.codes[column] = self._raw([column]) >> operators.Encode()
        return self.codes[column]

    def _since_previous(self) -> Any:
        events, rules = self.events, self.rules
        raw = [events.key, events.item, events.time.column, *([events.order] if events.order else [])]
        drop = rules.unknown_items == "drop"
        return (self.item + raw if drop else raw) >> operators.SincePrevious(
            events.key,
            events.item,
            events.time.column,
            events.order,
            rules.gap_ns,
            rules.collapse_repeats,
            ITEM_ID if drop else None,
        )


def _plain(entry: Categorical) -> bool:
    return not (entry.hash or entry.buckets or entry.min_count > 1)


def _normalise(node: Any) -> Any:
    """Mean 0 and deviation 1, bounded, the missing at the mean."""
    normalised = node >> operators.Normalize(out_dtype=np.float32)
    return normalised >> ops.Clip(min_value=-_OUTLIER, max_value=_OUTLIER) >> ops.FillMissing(fill_val=0)


def schema_of(workflow: nvtabular.Workflow) -> Schema:
    """The contract with the model: the fitted workflow's output schema, without paths of this machine.

    Categorical columns get the property ``reserved_ids``: how many of the lowest codes name no known value
    (padding, null, unknown). Normalised ones get ``mean`` and ``deviation``, so that a model can undo it.
    """
    moments = {
        # In six digits: the last bits depend on how the data was cut.
        name: {"mean": float(f"{op.means[name]:.6g}"), "deviation": float(f"{op.stds[name]:.6g}")}
        for op in operators_of(workflow)
        if isinstance(op, operators.Normalize)
        for name in op.means
    }
    kept = ("domain", "value_count", "embedding_sizes")
    columns = []
    for column in workflow.output_schema:
        properties = {key: value for key, value in column.properties.items() if key in kept}
        if Tags.CATEGORICAL in column.tags and column.name != SESSION_ID:
            properties["reserved_ids"] = RESERVED
        properties.update(moments.get(column.name, {}))
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


def operators_of(workflow: nvtabular.Workflow) -> list[Any]:
    """The operators of a workflow's graph."""
    return [node.op for node in postorder_iter_nodes(workflow.output_node)]


def item_encoder(workflow: nvtabular.Workflow, item: str) -> operators.Encode:
    """The operator of a fitted workflow that encodes the item's raw column."""
    found: operators.Encode = next(
        op for op in operators_of(workflow) if isinstance(op, operators.Encode) and item in op.values
    )
    return found
