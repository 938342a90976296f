"""The tasks that a schema asks for by its tags."""

from __future__ import annotations

from typing import Any

from modeling.tasks.classification import BinaryClassificationTask, MultiClassClassificationTask
from modeling.tasks.regression import RegressionTask
from modeling.tasks.target import TargetTask

_TAGGED: tuple[tuple[str, type[TargetTask]], ...] = (
    ("BINARY_CLASSIFICATION", BinaryClassificationTask),
    ("MULTI_CLASS_CLASSIFICATION", MultiClassClassificationTask),
    ("REGRESSION", RegressionTask),
)


def tasks_of(schema: Any, **arguments: Any) -> list[TargetTask]:
    """A task for each target column, in the order of the schema.

    Parameters
    ----------
    schema : merlin.schema.Schema
        Columns tagged binary_classification, multi_class_classification (with a domain) or regression.
    **arguments
        For the constructors, such as ``summary_type``.

    Raises
    ------
    ValueError
        When a column has two of these tags, or classes without a domain.
    """
    from modeling.schema import Tags

    kinds: dict[str, type[TargetTask]] = {}
    for tag, kind in _TAGGED:
        for name in schema.select_by_tag(getattr(Tags, tag)).column_names:
            if name in kinds:
                raise ValueError(f"the target column {name!r} is tagged for two tasks: leave it one tag")
            kinds[name] = kind
    return [kinds[name].from_column(schema[name], **arguments) for name in schema.column_names if name in kinds]
