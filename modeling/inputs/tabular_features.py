"""All the features of a schema, joined to one vector a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from modeling.blocks.mlp import MLPBlock
from modeling.blocks.sequential import SequentialBlock
from modeling.inputs.aggregation import TabularAggregation
from modeling.inputs.continuous import ContinuousFeatures, SoftEmbeddingFeatures
from modeling.inputs.embedding import EmbeddingFeatures, feature_configs
from modeling.inputs.initializers import PretrainedEmbeddingsInitializer
from modeling.inputs.item_vectors import ItemVectors
from modeling.inputs.pretrained import PretrainedEmbeddingFeatures
from modeling.inputs.tabular import AsTabular, TabularModule, as_features, widths_of
from modeling.schema import Feature, features_of
from modeling.serialization import part

if TYPE_CHECKING:
    from merlin.schema import Schema

PROJECTED = "continuous_projection"


@part
class TabularFeatures(TabularModule):
    """Embeds categorical features, takes numbers and vectors as they are or projects them: one vector a row.

    Usually made by `from_schema`. Columns are [B]; categorical ones may be [B, M], several codes a row.

    Parameters
    ----------
    features : sequence of Feature
        What the batches hold.
    continuous_projection : int or list of int, optional
        Widths of an MLP over all continuous features together; without it each is one component.
    aggregation : str or TabularAggregation, optional
        How the features are joined; without it the answer is a dict. "concat" puts the item first, then the others
        by name.
    embedding_dims : mapping of str to int, optional
        Width of single categorical features.
    embedding_dim_default : int
        Width of the others.
    infer_embedding_sizes : bool
        Take ``ceil(cardinality ** 0.25 * infer_embedding_sizes_multiplier)`` for the others instead.
    item_embedding_std, embedding_std : float
        Standard deviation of the initial item vectors, and of the others'.
    embeddings_initializers : mapping of str to callable, optional
        First values of single features' tables, such as `PretrainedEmbeddingsInitializer`.
    combiner : {"mean", "sum", "sqrtn"}
        What several codes of one value become.
    continuous_soft_embeddings : bool
        Represent each continuous feature by a `SoftEmbedding`; the ``soft_embedding_`` arguments are its sizes.
    pretrained_output_dims, normalizer, sequence_combiner
        See `PretrainedEmbeddingFeatures`.
    item_vectors : mapping of str to int, optional
        Frozen tables of vectors that are looked up by the item's code: name -> width. See `ItemVectors`, whose
        ``fill`` takes the vectors; `pretrained_output_dims` (if one number) and `normalizer` apply to them too.
    pre, post : str, TabularTransformation or list of them, optional
        What is done to the columns before they are embedded (such as "stochastic-swap-noise"), and to each feature's
        vector before they are joined (such as "layer-norm").

    Raises
    ------
    ValueError
        On arguments that contradict each other or the features.
    """

    _embedding_class: type[EmbeddingFeatures] = EmbeddingFeatures

    def __init__(
        self,
        features: Sequence[Feature | Mapping[str, Any]],
        continuous_projection: int | Sequence[int] | None = None,
        aggregation: str | TabularAggregation | None = None,
        embedding_dims: Mapping[str, int] | None = None,
        embedding_dim_default: int = 64,
        infer_embedding_sizes: bool = False,
        infer_embedding_sizes_multiplier: float = 2.0,
        item_embedding_std: float = 0.05,
        embedding_std: float = 0.05,
        embeddings_initializers: Mapping[str, Callable[[Tensor], Any]] | None = None,
        combiner: str = "mean",
        continuous_soft_embeddings: bool = False,
        soft_embedding_cardinalities: Mapping[str, int] | None = None,
        soft_embedding_cardinality_default: int = 10,
        soft_embedding_dims: Mapping[str, int] | None = None,
        soft_embedding_dim_default: int = 8,
        pretrained_output_dims: int | Mapping[str, int] | None = None,
        normalizer: str | nn.Module | None = None,
        sequence_combiner: str | nn.Module | None = None,
        item_vectors: Mapping[str, int] | None = None,
        pre: Any = None,
        post: Any = None,
    ) -> None:
        super().__init__(pre, post, aggregation, as_features(list(features)))
        widths = [continuous_projection] if isinstance(continuous_projection, int) else continuous_projection
        self.continuous_projection = list(widths) if widths else None
        self._options: dict[str, Any] = {
            "embedding_dims": dict(embedding_dims or {}),
            "embedding_dim_default": embedding_dim_default,
            "infer_embedding_sizes": infer_embedding_sizes,
            "infer_embedding_sizes_multiplier": infer_embedding_sizes_multiplier,
            "item_embedding_std": item_embedding_std,
            "embedding_std": embedding_std,
            "combiner": combiner,
        }
        first = {
            name: start
            for name, start in (embeddings_initializers or {}).items()
            if isinstance(start, PretrainedEmbeddingsInitializer)
        }
        soft = {
            "soft_embedding_cardinalities": dict(soft_embedding_cardinalities or {}),
            "soft_embedding_cardinality_default": soft_embedding_cardinality_default,
            "soft_embedding_dims": dict(soft_embedding_dims or {}),
            "soft_embedding_dim_default": soft_embedding_dim_default,
        }
        vectors = {
            "pretrained_output_dims": pretrained_output_dims,
            "normalizer": normalizer,
            "sequence_combiner": sequence_combiner,
        }
        self.to_merge = nn.ModuleDict()
        if any(feature.kind == "categorical" for feature in self.features):
            tables = feature_configs(self.features, embeddings_initializers=embeddings_initializers, **self._options)
            self.to_merge["categorical_module"] = self._embedding_class(tables, schema=self.features)
        self._check_continuous()
        continuous: Any = ContinuousFeatures.from_schema(self.features)
        if continuous_soft_embeddings:
            continuous = SoftEmbeddingFeatures.from_schema(self.features, **soft)  # type: ignore[arg-type]
        if continuous is not None:
            if self.continuous_projection:
                mlp = MLPBlock(self.continuous_projection)
                continuous = SequentialBlock(continuous.set_aggregation("concat"), mlp, AsTabular(PROJECTED))
            self.to_merge["continuous_module"] = continuous
        pretrained = PretrainedEmbeddingFeatures.from_schema(self.features, **vectors)  # type: ignore[arg-type]
        if pretrained is not None:
            self.to_merge["pretrained_embedding_module"] = pretrained
        if item_vectors:
            clash = sorted(set(item_vectors) & {feature.name for feature in self.features})
            if clash:
                raise ValueError(f"item_vectors: there is a feature {clash[0]!r} already")
            dims = pretrained_output_dims if isinstance(pretrained_output_dims, int) else None
            self.to_merge["item_vectors_module"] = ItemVectors(self.item, item_vectors, dims, normalizer)
        self._options.update(soft, **vectors, item_vectors=dict(item_vectors or {}))
        self._options.update(continuous_soft_embeddings=continuous_soft_embeddings)
        self._options["embeddings_initializers"] = first
        self.finish()

    def _check_continuous(self) -> None:
        for feature in self.features:
            if feature.kind == "continuous" and feature.sequence:
                raise ValueError(
                    f"the column {feature.name!r} is a list of numbers, for which TabularFeatures has no combiner: "
                    "use TabularSequenceFeatures, or a column of one number a row"
                )

    @classmethod
    def from_schema(
        cls,
        schema: Schema,
        continuous_tags: Any = "continuous",
        categorical_tags: Any = "categorical",
        pretrained_embeddings_tags: Any = "embedding",
        aggregation: str | TabularAggregation | None = None,
        automatic_build: bool = True,
        max_sequence_length: int | None = None,
        **arguments: Any,
    ) -> Any:
        """Inputs for a schema.

        Parameters
        ----------
        schema : Schema
            Of Merlin or of this library. Columns tagged categorical, continuous and embedding are taken.
        continuous_tags, categorical_tags, pretrained_embeddings_tags : Tags or list of Tags, optional
            Choose by other tags; None for no feature of the kind.
        automatic_build, max_sequence_length
            Accepted for compatibility.
        aggregation, **arguments
            As in the constructor. A column of lists is one value of several codes here.
        """
        found = features_of(schema, continuous_tags, categorical_tags, pretrained_embeddings_tags, item_required=False)
        return cls(tagged_item(schema, found, categorical_tags), aggregation=aggregation, **arguments)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().config()
        features = [feature.to_json() for feature in self.features]
        del config["schema"]
        return {"features": features, "continuous_projection": self.continuous_projection, **config, **self._options}

    @property
    def widths(self) -> dict[str, int]:
        """Width of each feature's vector."""
        return {name: width for module in self.to_merge.values() for name, width in widths_of(module).items()}

    @property
    def item_id(self) -> str | None:
        """The item's column, or None."""
        return next((feature.name for feature in self.features if feature.item), None)

    @property
    def item(self) -> Feature:
        """The item feature.

        Raises
        ------
        AttributeError
            When there is none.
        """
        for feature in self.features:
            if feature.item:
                return feature
        raise AttributeError("item")

    @property
    def tables(self) -> dict[str, nn.Embedding]:
        """The embedding tables by feature; features may share one."""
        if "categorical_module" not in self.to_merge:
            return {}
        module: Any = self.to_merge["categorical_module"]
        return {name: module.table(name) for name in module.feature_names}

    @property
    def item_table(self) -> nn.Embedding:
        """The embedding table of the item id."""
        return self.tables[self.item.name]

    @property
    def item_embedding_table(self) -> nn.Embedding:
        """The embedding table of the item id."""
        return self.item_table

    def transform(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Columns by name -> vectors by name."""
        vectors: dict[str, Tensor] = {}
        for module in self.to_merge.values():
            vectors.update(module(inputs))
        return vectors


def tagged_item(schema: Any, found: list[Feature], categorical_tags: Any) -> list[Feature]:
    """Without the item id where the categorical tags do not ask for it: nothing predicts it here."""
    if categorical_tags == "categorical":
        return found
    asked: set[str] = set()
    for tag in categorical_tags if isinstance(categorical_tags, list | tuple | set) else [categorical_tags]:
        asked |= set(schema.select_by_tag(tag).column_names) if tag is not None else set()
    return [feature for feature in found if not feature.item or feature.name in asked]
