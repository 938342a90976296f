"""Vectors as columns: what an encoder of texts or images said of each event, computed once in advance."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modeling.inputs.tables import key
from modeling.inputs.tabular import TabularModule, as_features, select
from modeling.schema import Feature, features_of
from modeling.serialization import part

SEQUENCE_COMBINERS = ("mean", "sum", "max", "min")
_NORMALIZERS = ("layer-norm",)


@part
class PretrainedEmbeddingFeatures(TabularModule):
    """Features that are vectors already: columns [B, L, V] of events, or [B, V] of sessions.

    Each is projected, normalised, and where asked for pooled over its sequence, in this order.

    Parameters
    ----------
    features : sequence of Feature
        Of kind "embedding".
    pretrained_output_dims : int or mapping of str to int, optional
        Project each vector to this width by a linear layer; features that a mapping does not name stay as they are.
    sequence_combiner : {"mean", "sum", "max", "min"} or nn.Module, optional
        Pool [B, L, D] to [B, D]. Events whose vector is all zero, padding above all, do not count; a sequence without
        others becomes zero. A module is called with the vectors [B, L, D] and, where it takes two arguments, with
        what counts [B, L].
    normalizer : "layer-norm" or nn.Module, optional
        Applied to each feature's vector; a module is shared by all features, layer-norm is not.
    pre, post, aggregation
        As in `TabularModule`.

    Raises
    ------
    ValueError
        On unknown names, and on features that are no vectors.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        pretrained_output_dims: int | Mapping[str, int] | None = None,
        sequence_combiner: str | nn.Module | None = None,
        normalizer: str | nn.Module | None = None,
        pre: Any = None,
        post: Any = None,
        aggregation: Any = None,
    ) -> None:
        super().__init__(pre, post, aggregation, list(features))
        for feature in self.features:
            if feature.kind != "embedding" or feature.width < 1:
                raise ValueError(f"the feature {feature.name!r} is no vector: it needs kind 'embedding' and a width")
        dims = pretrained_output_dims
        if dims is None or isinstance(dims, int):
            dims = {feature.name: dims for feature in self.features} if dims else {}
        strange = sorted(set(dims) - set(self.feature_names))
        if strange:
            raise ValueError(f"pretrained_output_dims names {strange[0]!r}, which is no pre-trained feature")
        if isinstance(sequence_combiner, str) and sequence_combiner not in SEQUENCE_COMBINERS:
            known = ", ".join(SEQUENCE_COMBINERS)
            raise ValueError(f"sequence_combiner must be a module or one of {known}, not {sequence_combiner!r}")
        if isinstance(normalizer, str) and normalizer not in _NORMALIZERS:
            raise ValueError(f"normalizer must be a module or 'layer-norm', not {normalizer!r}")
        self.pretrained_output_dims = dict(dims)
        self.sequence_combiner = sequence_combiner
        self.normalizer = normalizer
        self.projections = nn.ModuleDict(
            {key(f.name): nn.Linear(f.width, dims[f.name]) for f in self.features if f.name in dims}
        )
        norms = self.widths.items() if normalizer == "layer-norm" else ()
        self.norms = nn.ModuleDict({key(name): nn.LayerNorm(width) for name, width in norms})
        # A buffer follows the model from precision to precision, where there is no other tensor to ask.
        self.register_buffer("_dtype", torch.zeros(0), persistent=False)
        self.finish()

    @classmethod
    def from_schema(
        cls,
        schema: Any,
        tags: Any = None,
        pretrained_output_dims: int | Mapping[str, int] | None = None,
        sequence_combiner: str | nn.Module | None = None,
        normalizer: str | nn.Module | None = None,
        pre: Any = None,
        post: Any = None,
        aggregation: Any = None,
        **_: Any,
    ) -> Any:
        """For the columns of a schema that are tagged embedding, or those with `tags`; None when it has none."""
        if isinstance(schema, list | tuple):
            found = as_features(schema)
        else:
            found = features_of(schema, None, None, tags or "embedding", item_required=False)
        found = [feature for feature in found if feature.kind == "embedding"]
        if not found:
            return None
        return cls(found, pretrained_output_dims, sequence_combiner, normalizer, pre, post, aggregation)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().config()
        own = {name: getattr(self, name) for name in ("pretrained_output_dims", "sequence_combiner", "normalizer")}
        return {"features": config.pop("schema"), **own, **config}

    @classmethod
    def from_config(cls, features: list[Any], **arguments: Any) -> PretrainedEmbeddingFeatures:
        """From features as JSON."""
        return cls(as_features(features), **arguments)

    @property
    def widths(self) -> dict[str, int]:
        """The vectors' widths behind the projection."""
        return {f.name: self.pretrained_output_dims.get(f.name, f.width) for f in self.features}

    def transform(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Vectors by name -> vectors by name."""
        found = {}
        for feature in self.features:
            own = key(feature.name)
            # A missing component (NaN) counts as 0.
            vectors = torch.nan_to_num(select(inputs, feature.name).to(self.get_buffer("_dtype").dtype), nan=0.0)
            if not torch.jit.is_tracing() and vectors.shape[-1] != feature.width:
                raise ValueError(
                    f"the feature {feature.name!r} has vectors of width {vectors.shape[-1]}, expected {feature.width}"
                )
            real = (vectors != 0).any(-1)
            if own in self.projections:
                vectors = self.projections[own](vectors)
            if own in self.norms:
                vectors = self.norms[own](vectors)
            elif isinstance(self.normalizer, nn.Module):
                vectors = self.normalizer(vectors)
            if self.sequence_combiner is not None and vectors.dim() == 3:
                vectors = pool(vectors, real, self.sequence_combiner)
            found[feature.name] = vectors
        return found


def pool(vectors: Tensor, real: Tensor, combiner: str | nn.Module) -> Tensor:
    """One vector for the events that count.

    Parameters
    ----------
    vectors : Tensor [B, L, D]
        The events.
    real : Tensor [B, L], bool
        Which of them count.
    combiner : {"mean", "sum", "max", "min"} or nn.Module
        How; see `PretrainedEmbeddingFeatures`.

    Returns
    -------
    Tensor [B, D]
        Zero where none counts (for a module: what it says).
    """
    if isinstance(combiner, nn.Module):
        kept = vectors.masked_fill(~real[..., None], 0.0)
        takes_two = len(inspect.signature(combiner.forward).parameters) > 1
        result: Tensor = combiner(kept, real) if takes_two else combiner(kept)
        return result
    if combiner in ("max", "min"):
        edge = float("-inf") if combiner == "max" else float("inf")
        rest = vectors.masked_fill(~real[..., None], edge)
        best = rest.amax(1) if combiner == "max" else rest.amin(1)
        return torch.where(real.any(1)[:, None], best, torch.zeros_like(best))
    total = vectors.masked_fill(~real[..., None], 0.0).sum(1)
    return total if combiner == "sum" else total / real.sum(1)[:, None].clamp(min=1).to(total.dtype)
