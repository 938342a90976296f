"""Context that is joined to the answers of a sequence model, instead of to its inputs.

Latent Cross: Beutel et al., "Latent Cross: Making use of context in recurrent recommender systems", WSDM 2018.

What may be context: whatever is known before the event that is predicted. A column of sessions ([B]: the user's
country, the device) is context at every position, and the data must not have computed it from the whole session.
A column of events ([B, L]) is context only where position i predicts event i + 1, which is the causal objective:
there position i sees the context of event i, and of no later one. Other objectives predict an event at its own
position, where its context would tell what it is; for them such columns are refused. Lists that `TabularFeatures`
would pool over the whole session, the target among it, are refused always.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modeling.blocks.mlp import MLPBlock
from modeling.inputs.continuous import ContinuousFeatures, SoftEmbeddingFeatures
from modeling.inputs.embedding import SequenceEmbeddingFeatures
from modeling.inputs.features import TabularSequenceFeatures
from modeling.inputs.pretrained import PretrainedEmbeddingFeatures
from modeling.inputs.tabular import MergeTabular
from modeling.schema import Feature
from modeling.sequence import SessionStates
from modeling.serialization import describe, part, restore

FUSIONS = ("concat", "elementwise-mul", "elementwise-sum")


@part
class PostContextFusion(nn.Module):
    """A body that joins context to what another body says of each position.

    Parameters
    ----------
    sequential_module : SequentialBlock
        A body that begins with `TabularSequenceFeatures`.
    post_context_module : TabularFeatures, TabularSequenceFeatures or another tabular module
        The context: a module with an aggregation, that gives [B, C] or [B, L, C].
    fusion_aggregation : {"concat", "elementwise-mul", "elementwise-sum"}
        ``[x, c]``, ``x * (1 + c)`` or ``x + c``; the latter two need a context as wide as the body's vectors.

    Raises
    ------
    ValueError
        When the parts do not fit each other, or the context would show what is to be predicted.
    """

    takes_states = True

    def __init__(self, sequential_module: Any, post_context_module: Any, fusion_aggregation: str = "concat") -> None:
        super().__init__()
        if fusion_aggregation not in FUSIONS:
            raise ValueError(f"fusion_aggregation must be one of {', '.join(FUSIONS)}, not {fusion_aggregation!r}")
        if getattr(sequential_module, "inputs", None) is None:
            raise ValueError("sequential_module must be a body that begins with TabularSequenceFeatures")
        if getattr(post_context_module, "masking", None) is not None:
            raise ValueError("post_context_module must have no masking: nothing is predicted from the context alone")
        width, context = sequential_module.output_dim, getattr(post_context_module, "output_dim", 0)
        if not context:
            raise ValueError("post_context_module must give one vector: give it an aggregation, such as 'concat'")
        if fusion_aggregation != "concat" and width != context:
            raise ValueError(
                f"{fusion_aggregation} needs a context as wide as the body's vectors: {context} and {width} differ"
            )
        self.sequential_module = sequential_module
        self.post_context_module = post_context_module
        self.fusion_aggregation = fusion_aggregation
        self.output_dim = width + context if fusion_aggregation == "concat" else width
        self._check_leaks()

    def _check_leaks(self) -> None:
        masking = getattr(self.inputs, "masking", None)
        of_events = [feature.name for feature in _context_features(self.post_context_module) if feature.sequence]
        if not of_events:
            return
        # Only modules of sequences keep events apart; others pool them, the event to predict among them.
        if not _keeps_events(self.post_context_module):
            raise ValueError(
                f"the context column {of_events[0]!r} is a list over the session's events: pooled, it would show the "
                "one to predict. Use TabularSequenceFeatures with masking='clm' inputs, or columns of sessions"
            )
        if masking is not None and masking.name != "clm":
            raise ValueError(
                f"the context column {of_events[0]!r} belongs to events, and masking {masking.name!r} predicts an "
                "event at its own position: its context would tell it. Use masking='clm', or columns of sessions"
            )

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("sequential_module", "post_context_module", "fusion_aggregation")
        return {name: getattr(self, name) for name in names}

    @property
    def inputs(self) -> Any:
        """The input module of the sequence."""
        return self.sequential_module.inputs

    @property
    def features(self) -> list[Feature]:
        """The features of the sequence and of the context, each once."""
        both = [*self.inputs.features, *_context_features(self.post_context_module)]
        return list({feature.name: feature for feature in reversed(both)}.values())[::-1]

    @property
    def feature_names(self) -> list[str]:
        """The columns that `forward` needs, the context's among them."""
        return [feature.name for feature in self.features]

    @property
    def sequence_names(self) -> list[str]:
        """Those of them with a value an event."""
        return [feature.name for feature in self.features if feature.sequence]

    def fresh_rest(self) -> Any:
        """What comes behind the input module once more, with random weights of its own."""
        return _Rest(self.sequential_module.fresh_rest(), restore(describe(self.post_context_module)), self)

    def rest(self, states: SessionStates, columns: dict[str, Tensor]) -> SessionStates:
        """Everything behind the input module: the sequence's blocks, then the context of `columns`."""
        after: SessionStates = self.sequential_module.rest(states, columns)
        return fuse(after, self.post_context_module, columns, self.fusion_aggregation)

    def forward(self, inputs: dict[str, Tensor], training: bool = False, **options: Any) -> SessionStates:
        """Columns -> states, with the context in every vector."""
        return self.rest(self.inputs(inputs, training=training, **options), inputs)


class _Rest(nn.Module):
    """The blocks and the context of a fusion, without its inputs: a discriminator beside it."""

    def __init__(self, blocks: Any, context: Any, fusion: PostContextFusion) -> None:
        super().__init__()
        self.blocks, self.context = blocks, context
        self.fusion_aggregation, self.output_dim = fusion.fusion_aggregation, fusion.output_dim

    def rest(self, states: SessionStates, columns: dict[str, Tensor]) -> SessionStates:
        """As `PostContextFusion.rest`."""
        return fuse(self.blocks.rest(states, columns), self.context, columns, self.fusion_aggregation)


def fuse(states: SessionStates, module: Any, columns: dict[str, Tensor], aggregation: str) -> SessionStates:
    """Join context to the vectors of states.

    Parameters
    ----------
    states : SessionStates
        Vectors [B, P, D]; P may be one less than the columns (causal training) or one more (an appended [MASK]).
    module : nn.Module
        Gives the context [B, C] or [B, L, C].
    columns : dict of Tensor
        The batch.
    aggregation : str
        One of `FUSIONS`.
    """
    values = states.values
    # `embed`, where there is one: a sequence's forward would wrap the vectors in states.
    found = module.embed(columns) if hasattr(module, "embed") else module(columns)
    context: Tensor = found.values if isinstance(found, SessionStates) else found
    # Of events' context, that of the event which the states left out (the last of causal training) is left out too.
    whole = context.dim() == 2
    context = context[:, None].expand(-1, values.shape[1], -1) if whole else context[:, : values.shape[1]]
    if aggregation == "concat":
        return states.with_values(torch.cat([values, context], dim=-1))
    return states.with_values(values * (1 + context) if aggregation == "elementwise-mul" else values + context)


def _context_features(module: Any) -> list[Feature]:
    own = getattr(module, "features", None)
    return list(own if own is not None else getattr(getattr(module, "inputs", None), "features", []))


def _keeps_events(module: Any) -> bool:
    if isinstance(module, MergeTabular):
        return all(_keeps_events(one) for one in module.to_merge)
    if isinstance(module, PretrainedEmbeddingFeatures):
        return module.sequence_combiner is None
    blocks = getattr(module, "blocks", None)
    if blocks is not None and len(blocks):
        # Layers of other kinds might look at the events that follow.
        return _keeps_events(blocks[0]) and all(isinstance(block, MLPBlock) for block in list(blocks)[1:])
    keepers = (TabularSequenceFeatures, SequenceEmbeddingFeatures, ContinuousFeatures, SoftEmbeddingFeatures)
    return isinstance(module, keepers)
