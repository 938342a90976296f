"""From the padded columns of a batch to one vector an event.

Which columns there are, and of which kind, comes from the schema: a new column needs no change of code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modeling.blocks.base import Building
from modeling.blocks.mlp import MLPBlock
from modeling.masking.base import MaskSequence
from modeling.masking.registry import masking_from
from modeling.schema import Feature, features_of, item_feature
from modeling.sequence import SessionStates, lengths
from modeling.serialization import part

if TYPE_CHECKING:
    from merlin.schema import Schema

AGGREGATIONS = ("concat", "element-wise-sum")


def _key(name: str) -> str:
    """A column's name as a key of a ModuleDict: any name maps to a key of its own without dots or clashes."""
    return "f_" + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in name)


@part
class TabularSequenceFeatures(nn.Module):
    """Embeds categorical features, projects continuous ones, and joins them to one vector an event.

    Usually made by `from_schema`.

    Parameters
    ----------
    features : sequence of Feature
        What the batches hold; exactly one is the item id.
    max_sequence_length : int
        The most events of a session, the one to predict among them. A prediction is made from at most
        ``max_sequence_length - 1`` events, the most recent: training never shows more, so a longer past
        would be read through position vectors that nothing taught.
    continuous_projection : int or list of int, optional
        Widths of an MLP over all continuous features together; without it each is one component.
    aggregation : {"concat", "element-wise-sum"}
        How the features are joined. The sum needs equal widths.
    d_output : int, optional
        Width to which the joined vector is projected, by ``MLPBlock([d_output])``.
    projection : MLPBlock, optional
        The same, more freely. Excludes `d_output`.
    masking : str or MaskSequence, optional
        The training objective: a name of `masking_registry`; `masking_arguments` go to it.
    embedding_dims : mapping of str to int, optional
        Width of single features.
    embedding_dim_default : int
        Width of the others.
    infer_embedding_sizes : bool
        Take ``ceil(cardinality ** 0.25 * infer_embedding_sizes_multiplier)`` for the others instead.
    item_embedding_std, embedding_std : float
        Standard deviation of the initial item vectors, and of the others'.
    post : {"layer-norm"}, optional
        Normalise each feature's vector before they are joined.
    masking_arguments : mapping, optional
        Arguments of the objective, such as ``mlm_probability``.

    Raises
    ------
    ValueError
        On arguments that contradict each other.
    """

    takes_states = True

    def __init__(
        self,
        features: Sequence[Feature | Mapping[str, Any]],
        max_sequence_length: int,
        continuous_projection: int | Sequence[int] | None = None,
        aggregation: str = "concat",
        d_output: int | None = None,
        projection: Building | None = None,
        masking: str | MaskSequence | None = None,
        embedding_dims: Mapping[str, int] | None = None,
        embedding_dim_default: int = 64,
        infer_embedding_sizes: bool = False,
        infer_embedding_sizes_multiplier: float = 2.0,
        item_embedding_std: float = 0.05,
        embedding_std: float = 0.05,
        post: str | None = None,
        masking_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.features = [f if isinstance(f, Feature) else Feature(**f) for f in features]
        self.item = item_feature(self.features)
        if max_sequence_length < 2:
            raise ValueError(
                f"max_sequence_length must be at least 2 (an event and the next), not {max_sequence_length}"
            )
        if aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation must be one of {', '.join(AGGREGATIONS)}, not {aggregation!r}")
        if d_output and projection is not None:
            raise ValueError("give d_output or projection, not both")
        if post not in (None, "layer-norm"):
            raise ValueError(f"post must be 'layer-norm' or None, not {post!r}")
        self.max_sequence_length = max_sequence_length
        self.aggregation = aggregation
        self.continuous_projection = (
            [continuous_projection] if isinstance(continuous_projection, int) else continuous_projection
        )
        self._embeddings: dict[str, Any] = {
            "embedding_dims": dict(embedding_dims or {}),
            "embedding_dim_default": embedding_dim_default,
            "infer_embedding_sizes": infer_embedding_sizes,
            "infer_embedding_sizes_multiplier": infer_embedding_sizes_multiplier,
            "item_embedding_std": item_embedding_std,
            "embedding_std": embedding_std,
            "post": post,
        }
        widths = self._make_tables()
        self.norms = nn.ModuleDict()
        if post == "layer-norm":
            self.norms = nn.ModuleDict({key: nn.LayerNorm(width) for key, width in widths.items() if width > 1})
        if aggregation == "element-wise-sum" and len(set(widths.values())) > 1:
            raise ValueError(f"element-wise-sum needs features of equal width, found {sorted(set(widths.values()))}")
        joined = sum(widths.values()) if aggregation == "concat" else next(iter(widths.values()))
        self.projection = MLPBlock([d_output]) if d_output else projection
        if self.projection is not None:
            self.projection.build(joined)
        self.output_dim = self.projection.output_dim if self.projection is not None else joined
        self.masking = (
            masking_from(masking, self.output_dim, self.item.reserved, **(masking_arguments or {}))
            if masking is not None
            else None
        )

    @classmethod
    def from_schema(
        cls,
        schema: Schema,
        continuous_tags: Any = None,
        categorical_tags: Any = None,
        aggregation: str | None = None,
        max_sequence_length: int | None = None,
        **arguments: Any,
    ) -> TabularSequenceFeatures:
        """Inputs for a schema.

        Parameters
        ----------
        schema : merlin.schema.Schema
            Columns tagged categorical and continuous are taken; one must be tagged item_id.
        continuous_tags, categorical_tags : Tags or list of Tags, optional
            Choose by other tags.
        aggregation, max_sequence_length, **arguments
            As in the constructor. `aggregation` defaults to "concat", `max_sequence_length` to the
            ``value_count.max`` of the item column. Further arguments of the objective (``mlm_probability``)
            may be given here too.
        """
        from modeling.schema import max_length_of

        known = set(cls.__init__.__annotations__)
        objective = {name: arguments.pop(name) for name in list(arguments) if name not in known}
        if objective and arguments.get("masking") is None:
            raise TypeError(f"from_schema() got an unexpected argument {min(objective)!r}")
        limit = max_sequence_length or max_length_of(schema)
        features = features_of(schema, continuous_tags, categorical_tags)
        return cls(
            features, limit, aggregation=aggregation or "concat", masking_arguments=objective or None, **arguments
        )

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "features": [feature.to_json() for feature in self.features],
            "max_sequence_length": self.max_sequence_length,
            "continuous_projection": self.continuous_projection,
            "aggregation": self.aggregation,
            "projection": self.projection,
            "masking": self.masking,
            **self._embeddings,
        }

    @property
    def feature_names(self) -> list[str]:
        """The columns that `forward` needs."""
        return [feature.name for feature in self.features]

    @property
    def item_table(self) -> nn.Embedding:
        """The embedding table of the item id."""
        table = self.tables[_key(self.item.name)]
        assert isinstance(table, nn.Embedding)
        return table

    def _make_tables(self) -> dict[str, int]:
        options = self._embeddings
        self.tables = nn.ModuleDict()
        widths: dict[str, int] = {}
        for feature in self.features:
            if feature.kind == "categorical":
                width = options["embedding_dims"].get(feature.name, options["embedding_dim_default"])
                if options["infer_embedding_sizes"] and feature.name not in options["embedding_dims"]:
                    width = math.ceil(feature.cardinality**0.25 * options["infer_embedding_sizes_multiplier"])
                table = nn.Embedding(feature.cardinality, width, padding_idx=0)
                nn.init.normal_(table.weight, std=options["item_embedding_std" if feature.item else "embedding_std"])
                # Padding stays zero. Null and unknown begin there: what training never shows then says nothing.
                zero_rows(table, feature.reserved)
                self.tables[_key(feature.name)] = table
                widths[_key(feature.name)] = width
        self._continuous = [feature.name for feature in self.features if feature.kind == "continuous"]
        self.continuous: MLPBlock | None = None
        if self._continuous and self.continuous_projection:
            self.continuous = MLPBlock(self.continuous_projection).build(len(self._continuous))
            widths["continuous"] = self.continuous.output_dim
        else:
            widths.update({_key(name): 1 for name in self._continuous})
        return widths

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """One vector an event: [B, L, output_dim], from columns [B, L]."""
        vectors = {}
        for feature in self.features:
            if feature.kind == "categorical":
                vectors[_key(feature.name)] = self.tables[_key(feature.name)](inputs[feature.name])
        # A missing measurement (NaN) counts as 0, the mean of a normalised feature.
        dtype = self.item_table.weight.dtype
        numbers = [torch.nan_to_num(inputs[name].to(dtype), nan=0.0)[..., None] for name in self._continuous]
        if self.continuous is not None:
            vectors["continuous"] = self.continuous(torch.cat(numbers, dim=-1))
        else:
            vectors.update({_key(name): value for name, value in zip(self._continuous, numbers, strict=True)})
        for key, norm in self.norms.items():
            vectors[key] = norm(vectors[key])
        parts = list(vectors.values())
        if len(parts) == 1:
            joined = parts[0]
        else:
            joined = torch.stack(parts).sum(0) if self.aggregation == "element-wise-sum" else torch.cat(parts, dim=-1)
        return self.projection(joined) if self.projection is not None else joined

    def forward(self, inputs: Mapping[str, Tensor], training: bool = False) -> SessionStates:
        """Vectors, and where to read.

        Parameters
        ----------
        inputs : mapping of Tensor [B, L]
            Columns, right-padded with 0.
        training : bool
            With targets, chosen by the objective; otherwise to be read once a session.
        """
        items = inputs[self.item.name]
        values = self.embed(inputs)
        if self.masking is None:
            n = lengths(items)
            attend = torch.arange(items.shape[1], device=items.device) < n.clamp(min=1)[:, None]
            return SessionStates(values, attend, (n - 1).clamp(min=0))
        return self.masking.train_states(values, items) if training else self.masking.inference_states(values, items)


def zero_rows(table: nn.Embedding, count: int) -> None:
    """Set the first rows of a table to zero: padding, and codes that training never shows."""
    with torch.no_grad():
        table.weight[:count].zero_()
