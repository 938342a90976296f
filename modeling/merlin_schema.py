"""Merlin's schema with the methods that programs of Transformers4Rec call. Importing this file imports Merlin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.merlin import importing_merlin

with importing_merlin():
    import merlin.schema
    from merlin.schema.io import proto_utils
    from merlin.schema.io.tensorflow_metadata import TensorflowMetadata

_TYPES = {"int": "int", "uint": "int", "float": "float", "string": "bytes"}


class Schema(merlin.schema.Schema):
    """A `merlin.schema.Schema` that also reads and asks as ``merlin_standard_lib.Schema`` does.

    ``Schema().from_json(path)`` and ``Schema().from_proto_text(path)`` read the files in Transformers4Rec's
    repositories as they are. Everything else is Merlin's; selections are of this class again.
    """

    @classmethod
    def of(cls, schema: Any) -> Schema:
        """The same columns in this class."""
        return cls(dict(schema.column_schemas))

    @classmethod
    def from_json(cls, value: str | bytes | Path) -> Schema:
        """Read TensorFlow metadata in JSON.

        Parameters
        ----------
        value : str, bytes or Path
            The text, or the path of a file with it.
        """
        return cls._from_metadata(TensorflowMetadata.from_json(_text(value)))

    @classmethod
    def from_proto_text(cls, value: str | Path) -> Schema:
        """Read TensorFlow metadata in the text form of protobuf: the text, or the path of a file with it."""
        return cls._from_metadata(TensorflowMetadata.from_proto_text(_text(value)))

    @classmethod
    def _from_metadata(cls, metadata: Any) -> Schema:
        schema = cls.of(metadata.to_merlin_schema())
        for feature in metadata.proto_schema.feature:
            # Merlin drops a feature's fixed shape, where these files keep the width of a vector.
            sizes = [dim.size for dim in feature.shape.dim] if proto_utils.has_field(feature, "shape") else []
            if sizes and "embedding" in feature.annotation.tag:
                schema[feature.name] = schema[feature.name].with_properties({"embedding_dim": int(sizes[-1])})
        return schema

    def to_json(self) -> str:
        """As TensorFlow metadata in JSON."""
        return str(TensorflowMetadata.from_merlin_schema(self).to_json())

    def to_proto_text(self) -> str:
        """As TensorFlow metadata in the text form of protobuf."""
        return str(TensorflowMetadata.from_merlin_schema(self).to_proto_text())

    @property
    def item_id_column_name(self) -> str:
        """The first column tagged item_id.

        Raises
        ------
        ValueError
            When there is none.
        """
        names: list[str] = self.select_by_tag("item_id").column_names
        if not names:
            raise ValueError("no column of the schema is tagged item_id")
        return names[0]

    def categorical_cardinalities(self) -> dict[str, int]:
        """Largest code + 1 of each categorical column with a domain."""
        found = {}
        for column in self.select_by_tag("categorical"):
            largest = (column.properties.get("domain") or {}).get("max")
            if largest:
                found[column.name] = int(largest) + 1
        return found

    def embedding_sizes(self, multiplier: float = 2.0) -> dict[str, int]:
        """The width that ``infer_embedding_sizes`` gives each categorical column."""
        from modeling.inputs.tables import inferred_width

        return {name: inferred_width(rows, multiplier) for name, rows in self.categorical_cardinalities().items()}

    def select_by_type(self, to_select: Any) -> Schema:
        """Columns of some types: "int", "float", "bytes", numpy or Merlin dtypes, or a list of those."""
        return type(self)([column for column in self if _has_type(column, to_select)])

    def remove_by_type(self, to_remove: Any) -> Schema:
        """All other columns."""
        return type(self)([column for column in self if not _has_type(column, to_remove)])

    def remove_by_name(self, names: Any) -> Schema:
        """All columns but these."""
        return self.excluding_by_name([names] if isinstance(names, str) else names)

    def filter_columns_from_dict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What of a batch the schema names."""
        return {name: value for name, value in inputs.items() if name in self.column_schemas}

    def select_by_tag(self, tags: Any, pred_fn: Any = None) -> Schema:
        """Columns with any of the tags, as in Merlin; unlike there, the tags may be such as no column has together."""
        if pred_fn is not None or not isinstance(tags, list | tuple | set):
            return self.of(super().select_by_tag(tags, pred_fn))
        return self.select_by_name(lambda name: any(name in self.select_by_tag(tag).column_schemas for tag in tags))

    def excluding_by_tag(self, tags: Any, pred_fn: Any = None) -> Schema:
        """Columns with none of the tags."""
        return self.excluding_by_name(self.select_by_tag(tags, pred_fn).column_names)

    def select_by_name(self, names: Any) -> Schema:
        """Columns by name, in the order asked for; unknown names are left out. Also takes a predicate."""
        if callable(names):
            names = [name for name in self.column_names if names(name)]
        return self.of(super().select_by_name(names))

    def excluding_by_name(self, col_names: Any) -> Schema:
        """All columns but these."""
        return self.of(super().excluding_by_name(col_names))

    def copy(self) -> Schema:
        """The same columns in another schema."""
        return self.of(self)

    def __add__(self, other: Any) -> Schema:
        return self.of(super().__add__(other))

    def __getitem__(self, name: Any) -> Any:
        found = super().__getitem__(name)
        return self.of(found) if isinstance(found, merlin.schema.Schema) else found


def _text(value: str | bytes | Path) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    # A path holds no braces and no line breaks, a schema always does.
    if isinstance(value, Path) or not any(sign in value for sign in "{\n"):
        return Path(value).read_text(encoding="utf-8")
    return value


def _has_type(column: Any, wanted: Any) -> bool:
    if isinstance(wanted, list | tuple | set):
        return any(_has_type(column, one) for one in wanted)
    if callable(wanted) and not isinstance(wanted, type):
        return bool(wanted(column.dtype))
    own = _TYPES.get(str(column.dtype.element_type.value), "")
    if isinstance(wanted, str) and wanted.lower() in ("int", "float", "bytes"):
        return own == wanted.lower()
    return bool(merlin.dtypes.dtype(wanted).without_shape == column.dtype.without_shape)
