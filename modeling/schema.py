"""What the model must know of a data set, read from its Merlin schema.

The model itself holds only `Feature` records, so a saved model is rebuilt without Merlin (whose import takes
seconds); `read_schema` and `features_of` are the only places that need it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from common.errors import UserError
from common.merlin import importing_merlin

if TYPE_CHECKING:
    from merlin.schema import Schema


@dataclass(frozen=True)
class Feature:
    """One input of the model.

    Attributes
    ----------
    name : str
        The column.
    kind : {"categorical", "continuous"}
        Categorical values are int64 codes, continuous ones float32.
    cardinality : int
        Rows of the embedding table of a categorical feature: its largest code + 1. 0 for continuous ones.
    reserved : int
        Codes below it are no values: 0 padding, and where the schema's property ``reserved_ids`` says so
        1 null and 2 unknown.
    item : bool
        Whether it is the item id: the feature that is predicted.
    """

    name: str
    kind: Literal["categorical", "continuous"]
    cardinality: int = 0
    reserved: int = 1
    item: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def _merlin() -> Any:
    """Import Merlin's schema."""
    level = logging.getLogger().level
    with importing_merlin():
        import merlin.schema
        import merlin.schema.io.tensorflow_metadata
    logging.getLogger().setLevel(level)
    return merlin.schema


def __getattr__(name: str) -> Any:
    if name in ("Schema", "Tags", "ColumnSchema"):
        return getattr(_merlin(), name)
    raise AttributeError(name)


def read_schema(path: Path | str) -> Schema:
    """Read a Merlin schema.

    Parameters
    ----------
    path : Path or str
        A ``.pbtxt`` or ``.json`` file, or a folder that holds ``schema.pbtxt``.

    Raises
    ------
    UserError
        When the file is missing or is no schema.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "schema.pbtxt"
    if not path.is_file():
        raise UserError(f"{path} does not exist: it must hold the Merlin schema of the features")
    metadata = _merlin().io.tensorflow_metadata.TensorflowMetadata
    try:
        text = path.read_text(encoding="utf-8")
        proto = metadata.from_json(text) if path.suffix == ".json" else metadata.from_proto_text(text)
        return proto.to_merlin_schema()
    except Exception as error:  # the parsers raise what they like
        raise UserError(f"{path} is not a Merlin schema: {error}") from error


def schema_to_json(schema: Schema) -> str:
    """The schema as the JSON of TensorFlow metadata."""
    metadata = _merlin().io.tensorflow_metadata.TensorflowMetadata
    return str(metadata.from_merlin_schema(schema).to_json())


def _tagged(schema: Schema, tags: Any) -> set[str]:
    tags = tags if isinstance(tags, list | tuple | set) else [tags]
    return {name for tag in tags if tag is not None for name in schema.select_by_tag(tag).column_names}


def features_of(schema: Schema, continuous_tags: Any = None, categorical_tags: Any = None) -> list[Feature]:
    """The inputs that a schema describes: the item id first, then the others by name.

    Parameters
    ----------
    schema : merlin.schema.Schema
        Columns tagged categorical or continuous become inputs; session, user and target columns do not.
    continuous_tags, categorical_tags : Tags or list of Tags, optional
        Other tags to choose by.

    Raises
    ------
    UserError
        When there is not exactly one item id, or a categorical column has no domain.
    """
    tags = _merlin().Tags
    # `select_by_tag` knows the compound tag although the file holds "item" and "id" apart.
    items = _tagged(schema, tags.ITEM_ID)
    if len(items) != 1:
        found = ", ".join(sorted(items)) or "none"
        raise UserError(f"the schema must tag exactly one column as item_id, found: {found}")
    outside = _tagged(schema, tags.SESSION_ID) | _tagged(schema, [tags.USER_ID, tags.TARGET])
    categorical = (_tagged(schema, categorical_tags or tags.CATEGORICAL) | items) - outside
    continuous = _tagged(schema, continuous_tags or tags.CONTINUOUS) - categorical - outside
    found_features = []
    for name in sorted(categorical):
        properties = schema[name].properties
        domain = properties.get("domain") or {}
        if not domain.get("max"):
            raise UserError(f"column {name!r} of the schema is categorical and has no domain (int_domain.max)")
        reserved = int(properties.get("reserved_ids", 1))
        found_features.append(Feature(name, "categorical", int(domain["max"]) + 1, reserved, name in items))
    found_features += [Feature(name, "continuous") for name in sorted(continuous)]
    return sorted(found_features, key=lambda feature: not feature.item)


def max_length_of(schema: Schema) -> int:
    """The largest number of events a session can have: ``value_count.max`` of the item column, or 0."""
    (item,) = _tagged(schema, _merlin().Tags.ITEM_ID)
    return int((schema[item].properties.get("value_count") or {}).get("max") or 0)


def item_feature(features: Sequence[Feature]) -> Feature:
    """The one feature that is the item id."""
    return next(feature for feature in features if feature.item)
