"""Numbers: as they are, or as soft choices among learnt vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modeling.inputs.tables import key
from modeling.inputs.tabular import TabularModule, as_features, select
from modeling.inputs.transformations import TabularLayerNorm
from modeling.schema import Feature, features_of
from modeling.serialization import part


def _numbers(inputs: Mapping[str, Tensor], name: str, dtype: torch.dtype) -> Tensor:
    """A column of numbers. A missing one (NaN) counts as 0, the mean of a normalised feature."""
    return torch.nan_to_num(select(inputs, name).to(dtype), nan=0.0)


def _continuous(schema: Any, tags: Any) -> list[Feature]:
    if isinstance(schema, list | tuple):
        return [feature for feature in as_features(schema) if feature.kind == "continuous"]
    found = features_of(schema, tags or "continuous", None, None, item_required=False)
    return [feature for feature in found if feature.kind == "continuous"]


@part
class ContinuousFeatures(TabularModule):
    """Continuous features as vectors of one component: columns [B] or [B, L] become [B, 1] or [B, L, 1].

    Parameters
    ----------
    features : sequence of Feature or str
        The columns.
    pre, post, aggregation
        As in `TabularModule`.
    """

    def __init__(self, features: Sequence[Any], pre: Any = None, post: Any = None, aggregation: Any = None) -> None:
        known = [Feature(feature, "continuous") if isinstance(feature, str) else feature for feature in features]
        super().__init__(pre, post, aggregation, known)
        # A buffer follows the model from precision to precision; the module has no other tensor.
        self.register_buffer("_dtype", torch.zeros(0), persistent=False)
        self.finish()

    @classmethod
    def from_schema(
        cls, schema: Any, tags: Any = None, pre: Any = None, post: Any = None, aggregation: Any = None, **_: Any
    ) -> Any:
        """For the continuous columns of a schema, or those with `tags`; None when it has none."""
        found = _continuous(schema, tags)
        return cls(found, pre, post, aggregation) if found else None

    @classmethod
    def from_features(cls, features: Sequence[str], **arguments: Any) -> ContinuousFeatures:
        """For columns by name."""
        return cls(features, **arguments)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().config()
        return {"features": config.pop("schema"), **config}

    @classmethod
    def from_config(cls, features: list[Any] | None, **arguments: Any) -> ContinuousFeatures:
        """From features as JSON."""
        return cls(as_features(features or []), **arguments)

    @property
    def widths(self) -> dict[str, int]:
        """One component each."""
        return {feature.name: 1 for feature in self.features}

    def transform(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Numbers by name -> vectors by name."""
        dtype = self.get_buffer("_dtype").dtype
        return {feature.name: _numbers(inputs, feature.name, dtype)[..., None] for feature in self.features}


class SoftEmbedding(nn.Module):
    """A number as a weighted mean of learnt vectors; the weights are a softmax of a linear function of the number.

    Soft one-hot encoding: Li, Du & Bengio, "Time-dependent representation for neural event sequence prediction",
    arXiv:1708.00065.

    Parameters
    ----------
    num_embeddings : int
        How many vectors.
    embeddings_dim : int
        Their width.
    emb_initializer : callable, optional
        Fills them in place; N(0, 0.05) by default.
    """

    def __init__(
        self, num_embeddings: int, embeddings_dim: int, emb_initializer: Callable[[Tensor], Any] | None = None
    ) -> None:
        super().__init__()
        if num_embeddings < 1 or embeddings_dim < 1:
            raise ValueError("a soft embedding needs at least one vector of at least one component")
        self.embedding_table = nn.Embedding(num_embeddings, embeddings_dim)
        if emb_initializer is not None:
            emb_initializer(self.embedding_table.weight)
        else:
            nn.init.normal_(self.embedding_table.weight, std=0.05)
        self.projection_layer = nn.Linear(1, num_embeddings)

    def forward(self, numbers: Tensor) -> Tensor:
        """[...] -> [..., embeddings_dim]."""
        weights = torch.softmax(self.projection_layer(numbers[..., None]), dim=-1)
        return weights @ self.embedding_table.weight


@part
class SoftEmbeddingFeatures(TabularModule):
    """Continuous features by `SoftEmbedding`: columns [B] or [B, L] become [B, D] or [B, L, D].

    Parameters
    ----------
    features : sequence of Feature or str
        The columns.
    cardinalities, dims : mapping of str to int
        Number of vectors of each feature, and their width.
    layer_norm : bool
        Normalise each feature's vector.
    embeddings_initializers : mapping of str to callable, optional
        First values of single features' vectors; a saved model does not keep them.
    pre, post, aggregation
        As in `TabularModule`.
    """

    def __init__(
        self,
        features: Sequence[Any],
        cardinalities: Mapping[str, int],
        dims: Mapping[str, int],
        layer_norm: bool = True,
        embeddings_initializers: Mapping[str, Callable[[Tensor], Any]] | None = None,
        pre: Any = None,
        post: Any = None,
        aggregation: Any = None,
    ) -> None:
        known = [Feature(feature, "continuous") if isinstance(feature, str) else feature for feature in features]
        super().__init__(pre, post, aggregation, as_features(known))
        self.cardinalities, self.dims, self.layer_norm = dict(cardinalities), dict(dims), layer_norm
        first = embeddings_initializers or {}
        self.embedding_tables = nn.ModuleDict(
            {
                key(name): SoftEmbedding(self.cardinalities[name], self.dims[name], first.get(name))
                for name in self.feature_names
            }
        )
        self.norm = TabularLayerNorm(self.widths) if layer_norm else None
        self.finish()

    @classmethod
    def from_schema(
        cls,
        schema: Any,
        soft_embedding_cardinalities: Mapping[str, int] | None = None,
        soft_embedding_cardinality_default: int = 10,
        soft_embedding_dims: Mapping[str, int] | None = None,
        soft_embedding_dim_default: int = 8,
        embeddings_initializers: Mapping[str, Callable[[Tensor], Any]] | None = None,
        layer_norm: bool = True,
        tags: Any = None,
        pre: Any = None,
        post: Any = None,
        aggregation: Any = None,
        **_: Any,
    ) -> Any:
        """For the continuous columns of a schema, or those with `tags`; None when it has none."""
        found = _continuous(schema, tags)
        if not found:
            return None
        rows, widths = soft_embedding_cardinalities or {}, soft_embedding_dims or {}
        return cls(
            found,
            {f.name: rows.get(f.name, soft_embedding_cardinality_default) for f in found},
            {f.name: widths.get(f.name, soft_embedding_dim_default) for f in found},
            layer_norm,
            embeddings_initializers,
            pre,
            post,
            aggregation,
        )

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().config()
        own = {"cardinalities": self.cardinalities, "dims": self.dims, "layer_norm": self.layer_norm}
        return {"features": config.pop("schema"), **own, **config}

    @property
    def widths(self) -> dict[str, int]:
        """The vectors' widths."""
        return {name: self.dims[name] for name in self.feature_names}

    def transform(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Numbers by name -> vectors by name."""
        found = {}
        for name in self.feature_names:
            table: Any = self.embedding_tables[key(name)]
            found[name] = table(_numbers(inputs, name, table.embedding_table.weight.dtype))
        return self.norm(found) if self.norm is not None else found
