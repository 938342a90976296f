"""Categorical features: a vector a code, from tables that are learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from common.errors import UserError
from modeling.inputs.initializers import PretrainedEmbeddingsInitializer
from modeling.inputs.tables import FeatureConfig, Normal, TableConfig, combine, inferred_width, key
from modeling.inputs.tabular import TabularModule, as_features, select
from modeling.schema import Feature, features_of
from modeling.serialization import part


def feature_configs(
    features: Sequence[Feature],
    embedding_dims: Mapping[str, int] | None = None,
    embedding_dim_default: int = 64,
    infer_embedding_sizes: bool = False,
    infer_embedding_sizes_multiplier: float = 2.0,
    embeddings_initializers: Mapping[str, Callable[[Tensor], Any]] | None = None,
    combiner: str = "mean",
    item_embedding_std: float = 0.05,
    embedding_std: float = 0.05,
) -> dict[str, FeatureConfig]:
    """A table for each categorical feature; features of one domain and cardinality get the same.

    Parameters
    ----------
    features : sequence of Feature
        Others than categorical ones are passed over.
    embedding_dims : mapping of str to int, optional
        Widths of single features.
    embedding_dim_default : int
        Width of the others.
    infer_embedding_sizes, infer_embedding_sizes_multiplier
        Take `inferred_width` for the others instead. A feature with pre-trained vectors takes their width.
    embeddings_initializers : mapping of str to callable, optional
        First values of single features' tables.
    combiner : {"mean", "sum", "sqrtn"}
        See `TableConfig`.
    item_embedding_std, embedding_std : float
        Standard deviation of the first values of the item's table, and of the others'.

    Raises
    ------
    ValueError
        When an argument names a feature that there is not, or the features of one table ask for different ones.
    """
    given, first = dict(embedding_dims or {}), dict(embeddings_initializers or {})
    categorical = [feature for feature in features if feature.kind == "categorical"]
    names = [feature.name for feature in categorical]
    for what, mapping in (("embedding_dims", given), ("embeddings_initializers", first)):
        strange = sorted(set(mapping) - set(names))
        if strange:
            raise ValueError(f"{what} names {strange[0]!r}; the categorical features are {', '.join(map(repr, names))}")
    groups: dict[tuple[str, int], list[Feature]] = {}
    for feature in categorical:
        groups.setdefault((feature.domain or feature.name, feature.cardinality), []).append(feature)
    configs: dict[str, FeatureConfig] = {}
    for (_, rows), group in groups.items():
        members = [feature.name for feature in group]
        widths = {given[name] for name in members if name in given}
        starts = {name: first[name] for name in members if name in first}
        if len(widths) > 1 or len({_same(start) for start in starts.values()}) > 1:
            raise ValueError(
                f"the features {', '.join(map(repr, members))} share a table: give them one width and start"
            )
        start = next(iter(starts.values()), None)
        if widths:
            width = widths.pop()
        elif isinstance(start, PretrainedEmbeddingsInitializer):
            width = start.shape[1]
        else:
            width = inferred_width(rows, infer_embedding_sizes_multiplier) if infer_embedding_sizes else 0
        std = item_embedding_std if any(feature.item for feature in group) else embedding_std
        table = TableConfig(
            rows, width or embedding_dim_default, start or Normal(std), combiner, members[0],
            max(feature.reserved for feature in group),
        )  # fmt: skip
        configs.update({f.name: FeatureConfig(table, sequence=f.sequence) for f in group})
    return {name: configs[name] for name in names}


def _same(start: Any) -> Any:
    """What tells initialisers apart: restored ones, which have no matrix, by what they say of the weights."""
    if isinstance(start, PretrainedEmbeddingsInitializer) and start.weight_matrix is None:
        return (*start.shape, start.trainable)
    return id(start)


@part
class EmbeddingFeatures(TabularModule):
    """Embeds categorical features of no sequence: one vector a row.

    A column is [B], or [B, M] where a value has several codes (padded with 0), which `TableConfig.combiner` joins.

    Parameters
    ----------
    feature_config : mapping of str to FeatureConfig
        The features. Those whose tables are one object, or have one name, share it.
    item_id : str, optional
        The item's column.
    pre, post, aggregation, schema
        As in `TabularModule`.

    Raises
    ------
    ValueError
        When two different tables have one name, or an initialiser does not fit its table.
    """

    def __init__(
        self,
        feature_config: Mapping[str, FeatureConfig],
        item_id: str | None = None,
        pre: Any = None,
        post: Any = None,
        aggregation: Any = None,
        schema: Any = None,
    ) -> None:
        super().__init__(pre, post, aggregation, schema)
        self.feature_config = dict(feature_config)
        if not self.features:
            self.features = [
                Feature(
                    name, "categorical", c.table.vocabulary_size, c.table.reserved, name == item_id, sequence=c.sequence
                )
                for name, c in self.feature_config.items()
            ]
        self.features = [feature for feature in self.features if feature.name in self.feature_config]
        self.item_id = item_id or next((feature.name for feature in self.features if feature.item), None)
        if self.item_id is not None and self.item_id not in self.feature_config:
            raise ValueError(f"item_id {self.item_id!r} is none of the features {', '.join(self.feature_config)}")
        self._table_of: dict[str, str] = {}
        tables: dict[str, TableConfig] = {}
        for name, feature in self.feature_config.items():
            table = feature.table
            table_name = next((n for n, t in tables.items() if t is table), table.name or feature.name or name)
            other = tables.setdefault(table_name, table)
            if (other.vocabulary_size, other.dim) != (table.vocabulary_size, table.dim):
                raise ValueError(
                    f"two tables are named {table_name!r} and differ in size: give them names of their own"
                )
            table.name = table.name or table_name
            self._table_of[name] = key(table_name)
        self.embedding_tables = nn.ModuleDict({key(name): table.make() for name, table in tables.items()})
        self.finish()

    @classmethod
    def from_schema(
        cls,
        schema: Any,
        embedding_dims: Mapping[str, int] | None = None,
        embedding_dim_default: int = 64,
        infer_embedding_sizes: bool = False,
        infer_embedding_sizes_multiplier: float = 2.0,
        embeddings_initializers: Mapping[str, Callable[[Tensor], Any]] | None = None,
        combiner: str = "mean",
        tags: Any = None,
        item_id: str | None = None,
        max_sequence_length: int | None = None,
        aggregation: Any = None,
        pre: Any = None,
        post: Any = None,
        automatic_build: bool = True,
    ) -> Any:
        """For the categorical columns of a schema.

        Parameters
        ----------
        schema : Schema or list of Feature
            The columns.
        embedding_dims, embedding_dim_default, infer_embedding_sizes, infer_embedding_sizes_multiplier, \
embeddings_initializers, combiner
            See `feature_configs`.
        tags : Tags or list of Tags, optional
            Take the columns with these tags instead of those tagged categorical.
        item_id : str, optional
            The item's column, where no tag says so.
        max_sequence_length, automatic_build
            Accepted for compatibility.
        aggregation, pre, post
            As in `TabularModule`.

        Returns
        -------
        EmbeddingFeatures or None
            None when the schema has no such column.

        Raises
        ------
        ValueError
            When the arguments do not fit the schema, or it tags several item ids.
        """
        if isinstance(schema, list | tuple):
            features = [feature for feature in as_features(schema) if feature.kind == "categorical"]
        else:
            features = _categorical(schema, tags, item_id)
        if not features:
            return None
        config = feature_configs(
            features, embedding_dims, embedding_dim_default, infer_embedding_sizes, infer_embedding_sizes_multiplier,
            embeddings_initializers, combiner,
        )  # fmt: skip
        return cls(config, item_id, pre=pre, post=post, aggregation=aggregation, schema=features)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().config(), "feature_config": self.feature_config, "item_id": self.item_id}

    @property
    def widths(self) -> dict[str, int]:
        """The tables' widths."""
        return {name: feature.table.dim for name, feature in self.feature_config.items()}

    def table(self, name: str) -> nn.Embedding:
        """The table of a feature."""
        found = self.embedding_tables[self._table_of[name]]
        assert isinstance(found, nn.Embedding)
        return found

    @property
    def item_embedding_table(self) -> nn.Embedding:
        """The item's table.

        Raises
        ------
        AttributeError
            When there is no item id.
        """
        if self.item_id is None:
            raise AttributeError("item_embedding_table")
        return self.table(self.item_id)

    def _is_bag(self, name: str, codes: Tensor) -> bool:
        return codes.dim() > 1

    def transform(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Codes by name -> vectors by name."""
        found = {}
        for name, feature in self.feature_config.items():
            codes = select(inputs, name)
            vectors = self.table(name)(codes)
            found[name] = combine(codes, vectors, feature.table.combiner) if self._is_bag(name, codes) else vectors
        return found


@part
class SequenceEmbeddingFeatures(EmbeddingFeatures):
    """Embeds categorical features of events: one vector an event.

    A column is [B, L], or [B, L, M] where an event's value has several codes. Columns [B] have a value a session, and
    become [B, width]. Row 0 of every table is padding: it is zero, whatever the initialiser wrote, and stays zero.

    Parameters
    ----------
    feature_config, item_id, pre, post, aggregation, schema
        As in `EmbeddingFeatures`.
    padding_idx : int
        The code of padding; only 0 is supported.
    """

    def __init__(
        self,
        feature_config: Mapping[str, FeatureConfig],
        item_id: str | None = None,
        padding_idx: int = 0,
        pre: Any = None,
        post: Any = None,
        aggregation: Any = None,
        schema: Any = None,
    ) -> None:
        if padding_idx != 0:
            raise ValueError(f"padding_idx must be 0, not {padding_idx}")
        super().__init__(feature_config, item_id, pre, post, aggregation, schema)

    def _is_bag(self, name: str, codes: Tensor) -> bool:
        return codes.dim() > (2 if self.feature_config[name].sequence else 1)


def _categorical(schema: Any, tags: Any, item_id: str | None) -> list[Feature]:
    """Categorical features of a schema, for modules that know no other kind."""
    try:
        found = features_of(schema, None, tags or "categorical", None, item_required=False)
    except UserError as error:
        raise ValueError(str(error)) from error
    if tags is not None:
        asked = set(schema.select_by_tag(tags).column_names)
        found = [feature for feature in found if feature.name in asked]
    if item_id is not None:
        if item_id not in {feature.name for feature in found}:
            raise ValueError(f"item_id {item_id!r} is no categorical column of the schema")
        found = [Feature(**{**feature.to_json(), "item": feature.name == item_id}) for feature in found]
    return found
