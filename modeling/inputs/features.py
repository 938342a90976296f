"""All the features of a schema, joined to one vector an event, with what is to be predicted hidden.

Which columns there are, and of which kind, comes from the schema: a new column needs no change of code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modeling.blocks.base import Block, Building
from modeling.blocks.mlp import MLPBlock
from modeling.inputs.aggregation import TabularAggregation
from modeling.inputs.embedding import SequenceEmbeddingFeatures
from modeling.inputs.tabular import select
from modeling.inputs.tabular_features import TabularFeatures, tagged_item
from modeling.masking.base import MaskSequence, plain_states
from modeling.masking.registry import masking_from
from modeling.schema import Feature, features_of, max_length_of
from modeling.sequence import SessionStates
from modeling.serialization import part

if TYPE_CHECKING:
    from merlin.schema import Schema


@part
class TabularSequenceFeatures(TabularFeatures):
    """Embeds the features of events and of sessions, joins them to one vector an event, and hides what is to predict.

    Usually made by `from_schema`. Columns of events are [B, L] ([B, L, width] where they are vectors), columns of
    sessions [B] ([B, width]): those count at every event. In this order: pre, embeddings, post, aggregation,
    projection, masking.

    Parameters
    ----------
    features : sequence of Feature
        What the batches hold; with an objective, one is the item id.
    max_sequence_length : int
        The most events of a session, the one to predict among them. A prediction is made from at most
        ``max_sequence_length - 1`` events, the most recent: training never shows more, so a longer past
        would be read through position vectors that nothing taught.
    continuous_projection : int or list of int, optional
        See `TabularFeatures`.
    aggregation : str or TabularAggregation, optional
        "concat" by default.
    d_output : int, optional
        Width to which the joined vector is projected, by ``MLPBlock([d_output])``.
    projection : MLPBlock or nn.Module, optional
        The same, more freely. Excludes `d_output`.
    masking : str or MaskSequence, optional
        The training objective: a name of `masking_registry`; `masking_arguments` go to it.
    masking_arguments : mapping, optional
        Arguments of the objective, such as ``mlm_probability``.
    **embedding_arguments
        The other arguments of `TabularFeatures`, but for ``sequence_combiner``.

    Raises
    ------
    ValueError
        On arguments that contradict each other or the features.
    """

    takes_states = True
    _embedding_class = SequenceEmbeddingFeatures

    def __init__(
        self,
        features: Sequence[Feature | Mapping[str, Any]],
        max_sequence_length: int,
        continuous_projection: int | Sequence[int] | None = None,
        aggregation: str | TabularAggregation | None = None,
        d_output: int | None = None,
        projection: nn.Module | None = None,
        masking: str | MaskSequence | None = None,
        masking_arguments: Mapping[str, Any] | None = None,
        **embedding_arguments: Any,
    ) -> None:
        if max_sequence_length < 2:
            raise ValueError(
                f"max_sequence_length must be at least 2 (an event and the next), not {max_sequence_length}"
            )
        if d_output and projection is not None:
            raise ValueError("give d_output or projection, not both")
        if embedding_arguments.get("sequence_combiner") is not None:
            raise ValueError(
                "sequence_combiner would show every event of a session to each of them, the one to predict too: "
                "it is for TabularFeatures"
            )
        super().__init__(features, continuous_projection, aggregation or "concat", **embedding_arguments)
        if not any(feature.sequence for feature in self.features):
            raise ValueError("no feature has a value an event: at least the item id must be a list column")
        if self.item_id is not None and not self.item.sequence:
            raise ValueError(f"the item id {self.item_id!r} must be a list column: a session is a list of items")
        if masking is not None and self.item_id is None:
            raise ValueError("masking needs an item id among the features: tag a column of the schema as item_id")
        assert self.aggregation is not None
        if self.aggregation.name == "stack" and (masking is not None or projection is not None or d_output):
            raise ValueError("stack gives a matrix an event: masking and projection need 'concat' or a sum")
        self.max_sequence_length = max_sequence_length
        joined = self.aggregation.width(self.output_widths)
        self.projection = _built(MLPBlock([d_output]) if d_output else projection, joined)
        self._output_dim = self.projection.output_dim if self.projection is not None else joined
        self.masking = (
            masking_from(masking, self._output_dim, self.item.reserved, **(masking_arguments or {}))
            if masking is not None
            else None
        )

    def _check_continuous(self) -> None:
        """Lists of numbers are what this is for."""

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
    ) -> TabularSequenceFeatures:
        """Inputs for a schema.

        Parameters
        ----------
        schema : Schema
            Of Merlin or of this library. Columns tagged categorical, continuous and embedding are taken; one must be
            tagged item_id where there is an objective.
        continuous_tags, categorical_tags, pretrained_embeddings_tags : Tags or list of Tags, optional
            Choose by other tags; None for no feature of the kind.
        automatic_build : bool
            Accepted for compatibility: sizes are always inferred.
        aggregation, max_sequence_length, **arguments
            As in the constructor. `max_sequence_length` defaults to the ``value_count.max`` of the item column.
            Further arguments of the objective (``mlm_probability``) may be given here too.

        Raises
        ------
        UserError
            When the schema does not describe usable inputs.
        """
        known = {*TabularFeatures.__init__.__annotations__, *cls.__init__.__annotations__}
        objective = {name: arguments.pop(name) for name in list(arguments) if name not in known}
        if objective and arguments.get("masking") is None:
            raise TypeError(f"from_schema() got an unexpected argument {min(objective)!r}")
        limit = max_sequence_length or max_length_of(schema)
        needed = arguments.get("masking") is not None
        found = features_of(schema, continuous_tags, categorical_tags, pretrained_embeddings_tags, needed)
        if not needed:
            found = tagged_item(schema, found, categorical_tags)
        objective = {**(arguments.pop("masking_arguments", None) or {}), **objective}
        return cls(found, limit, aggregation=aggregation, masking_arguments=objective or None, **arguments)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().config()
        del config["sequence_combiner"]
        own = {name: getattr(self, name) for name in ("max_sequence_length", "projection", "masking")}
        return {**config, **own}

    @property
    def output_dim(self) -> int:
        """Width of an event's vector."""
        return self._output_dim

    def item_slice(self) -> slice:
        """Where the item's own vector stands in the joined one, before the projection."""
        return slice(0, self.output_widths[self.item.name])

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """One vector an event: [B, L, output_dim], from columns of events [B, L] and of sessions [B]."""
        joined: Tensor = super().forward({name: select(inputs, name) for name in self.feature_names})
        return self.projection(joined) if self.projection is not None else joined

    def forward(self, inputs: Mapping[str, Tensor], training: bool = False, **options: Any) -> SessionStates:
        """Vectors, and where to read.

        Parameters
        ----------
        inputs : mapping of Tensor
            Columns, right-padded with 0. The objective takes the targets from the item's as it is here: noise that
            `pre` makes does not reach it.
        training : bool
            With targets, chosen by the objective; otherwise to be read once a session.
        **options
            Left to others.
        """
        values = self.embed(inputs)
        if self.masking is not None:
            items = inputs[self.item.name]
            states: SessionStates = (
                self.masking.train_states(values, items) if training else self.masking.inference_states(values, items)
            )
            return states
        return plain_states(values, self._codes(inputs))

    @property
    def length_name(self) -> str | None:
        """The column that is 0 where there is no event: the item id, or else another code of events, or None."""
        codes = [feature for feature in self.features if feature.sequence and feature.kind == "categorical"]
        return next((feature.name for feature in codes if feature.item), codes[0].name if codes else None)

    def _codes(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """That column [B, L]; where there is none, every position counts as an event."""
        if self.length_name is not None:
            return inputs[self.length_name]
        name = next(feature.name for feature in self.features if feature.sequence)
        return torch.ones(inputs[name].shape[:2], dtype=torch.long, device=inputs[name].device)


def _built(projection: nn.Module | None, width: int) -> Any:
    """The projection for inputs of this width, as something that knows its output's."""
    if projection is None:
        return None
    if isinstance(projection, Building):
        return projection.build(width)
    with torch.no_grad():
        sample = torch.zeros(1, 1, width, dtype=next((p.dtype for p in projection.parameters()), None))
        try:
            return Block(projection, int(projection(sample).shape[-1]))
        except RuntimeError as error:
            raise ValueError(f"the projection does not take vectors of width {width}: {error}") from error
