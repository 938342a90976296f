"""What the model must know of a data set, read from its Merlin schema.

The model itself holds only `Feature` records, so a saved model is rebuilt without Merlin (whose import takes
seconds); `read_schema` and `features_of` are the only places that need it.
"""

from __future__ import annotations

import logging
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
    kind : {"categorical", "continuous", "embedding"}
        Categorical values are int64 codes, continuous ones float32; an embedding is a vector of float32 that was
        computed elsewhere.
    cardinality : int
        Rows of the embedding table of a categorical feature: its largest code + 1. 0 for others.
    reserved : int
        Codes below it are no values: 0 padding, and where the schema's property ``reserved_ids`` says so
        1 null and 2 unknown.
    item : bool
        Whether it is the item id: the feature that is predicted.
    sequence : bool
        Whether there is a value an event (columns [B, L], [B, L, width]) or one a session ([B], [B, width]).
    width : int
        Components of an embedding. 0 for others.
    domain : str
        Categorical features with the same domain and cardinality share a table. Empty: the column's name.
    mean, deviation : float
        What a number was normalised with, for backbones that want it as it was: the schema's properties of these names.
    """

    name: str
    kind: Literal["categorical", "continuous", "embedding"]
    cardinality: int = 0
    reserved: int = 1
    item: bool = False
    sequence: bool = True
    width: int = 0
    domain: str = ""
    mean: float = 0.0
    deviation: float = 1.0

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


def _schema_class() -> Any:
    _merlin()
    from modeling.merlin_schema import Schema

    return Schema


def __getattr__(name: str) -> Any:
    if name == "Schema":
        return _schema_class()
    if name in ("Tags", "ColumnSchema"):
        return getattr(_merlin(), name)
    raise AttributeError(name)


def read_schema(path: Path | str) -> Schema:
    """Read a Merlin schema, or one of Transformers4Rec.

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
    kind = _schema_class()
    try:
        return kind.from_json(path) if path.suffix == ".json" else kind.from_proto_text(path)
    except Exception as error:  # the parsers raise what they like
        raise UserError(f"{path} is not a Merlin schema: {error}") from error


def schema_to_json(schema: Schema) -> str:
    """The schema as the JSON of TensorFlow metadata."""
    metadata = _merlin().io.tensorflow_metadata.TensorflowMetadata
    return str(metadata.from_merlin_schema(schema).to_json())


def _tagged(schema: Schema, tags: Any) -> set[str]:
    tags = tags if isinstance(tags, list | tuple | set) else [tags]
    return {name for tag in tags if tag is not None for name in schema.select_by_tag(tag).column_names}


def target_names(schema: Schema) -> list[str]:
    """Columns that say what is to be predicted, by their tags, in the schema's order."""
    tags = _merlin().Tags
    found = _tagged(schema, [tags.TARGET, tags.BINARY_CLASSIFICATION, tags.REGRESSION, tags.MULTI_CLASS_CLASSIFICATION])
    return [name for name in schema.column_names if name in found]


def features_of(
    schema: Schema,
    continuous_tags: Any = "continuous",
    categorical_tags: Any = "categorical",
    embedding_tags: Any = "embedding",
    item_required: bool = True,
) -> list[Feature]:
    """The inputs that a schema describes: the item id first, then the others by name.

    Columns tagged categorical, continuous or embedding become inputs; session and target columns do not, and the
    user's id only where `categorical_tags` asks for it. A column that is a list has a value an event, others
    have one a session. The width of a vector is the last of the column's dimensions, or its property
    ``embedding_dim``.

    Parameters
    ----------
    schema : merlin.schema.Schema
        Of Merlin or of this library.
    continuous_tags, categorical_tags, embedding_tags : Tags or list of Tags, optional
        Other tags to choose by; None for no feature of the kind. The item id is always taken.
    item_required : bool
        Whether the schema must have an item id.

    Raises
    ------
    UserError
        When there is not exactly one item id, a categorical column has no domain, or a vector no width.
    """
    tags = _merlin().Tags
    # `select_by_tag` knows the compound tag although the file holds "item" and "id" apart.
    items = _tagged(schema, tags.ITEM_ID)
    if len(items) > 1 or (item_required and not items):
        found = ", ".join(sorted(items)) or "none"
        raise UserError(f"the schema must tag exactly one column as item_id, found: {found}")
    outside = _tagged(schema, tags.SESSION_ID) | set(target_names(schema))
    asked = categorical_tags if isinstance(categorical_tags, list | tuple | set) else [categorical_tags]
    if not {"user_id", tags.USER_ID} & set(asked):
        outside |= _tagged(schema, tags.USER_ID)
    vectors = _tagged(schema, embedding_tags) - items - outside
    # Other tags may gather columns of both kinds: then the column itself says which it is.
    codes, numbers = _tagged(schema, tags.CATEGORICAL), _tagged(schema, tags.CONTINUOUS)
    floats = {column.name for column in schema if column.dtype.is_float}
    categorical = ((_tagged(schema, categorical_tags) - (floats | numbers - codes)) - vectors - outside) | items
    continuous = (_tagged(schema, continuous_tags) - (codes - numbers)) - categorical - vectors - outside
    found_features = [_categorical(schema[name], name in items) for name in sorted(categorical)]
    found_features += [_continuous(schema[name]) for name in sorted(continuous)]
    found_features += [_embedding(schema[name]) for name in sorted(vectors)]
    return sorted(found_features, key=lambda feature: not feature.item)


def _is_list(column: Any) -> bool:
    return bool(column.is_list) or "list" in {getattr(tag, "value", tag) for tag in column.tags}


def _categorical(column: Any, item: bool) -> Feature:
    domain = column.properties.get("domain") or {}
    if not domain.get("max"):
        raise UserError(f"column {column.name!r} of the schema is categorical and has no domain (int_domain.max)")
    shared = str(domain.get("name") or "")
    return Feature(
        column.name,
        "categorical",
        int(domain["max"]) + 1,
        int(column.properties.get("reserved_ids", 1)),
        item,
        sequence=_is_list(column),
        domain="" if shared == column.name else shared,
    )


def _continuous(column: Any) -> Feature:
    mean, deviation = (float(column.properties.get(name, value)) for name, value in (("mean", 0), ("deviation", 1)))
    return Feature(column.name, "continuous", sequence=_is_list(column), mean=mean, deviation=deviation)


def _embedding(column: Any) -> Feature:
    dims: Any = column.shape.dims or ()
    width, sequence = int(column.properties.get("embedding_dim") or 0), _is_list(column)
    if not width and len(dims) > 1 and dims[-1].is_fixed:
        width, sequence = int(dims[-1].max), len(dims) > 2
    if not width:
        raise UserError(
            f"column {column.name!r} of the schema is an embedding of unknown width: give it the property "
            "embedding_dim, or dimensions whose last is fixed"
        )
    return Feature(column.name, "embedding", sequence=sequence, width=width)


def max_length_of(schema: Schema) -> int:
    """The largest number of events a session can have: ``value_count.max`` of the item column, or 0."""
    items = _tagged(schema, _merlin().Tags.ITEM_ID)
    names = sorted(items) or [column.name for column in schema if column.is_list]
    return max((int((schema[name].properties.get("value_count") or {}).get("max") or 0) for name in names), default=0)
