"""The model that settings describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from common.errors import UserError
from modeling.inputs.item_vectors import ItemVectors
from modeling.model import Model
from modeling.schema import Feature
from modeling.settings import ModelSettings

# The column that ``features: {time: [since_previous]}`` makes.
SINCE_PREVIOUS = "since_previous"


def build_model(
    features: list[Feature],
    max_sequence_length: int,
    settings: ModelSettings,
    vectors: Mapping[str, Tensor] | None = None,
) -> Model:
    """The model that settings describe, with random weights.

    Parameters
    ----------
    features : list of Feature
        The inputs; side features are left out where the settings say so.
    max_sequence_length : int
        The most events of a session.
    settings : ModelSettings
        Architecture and sizes.
    vectors : mapping of str to Tensor [cardinality, width], optional
        Vectors that the items had before, by code: side features that training does not change.

    Raises
    ------
    UserError
        When the settings do not fit the architecture.
    """
    try:
        return _built(features, max_sequence_length, settings, vectors or {})
    except ValueError as error:
        raise UserError(f"model settings: {error}") from error


def _built(
    features: list[Feature], max_sequence_length: int, settings: ModelSettings, vectors: Mapping[str, Tensor]
) -> Model:
    from modeling.backbones.registry import transformer_registry
    from modeling.blocks.mlp import MLPBlock
    from modeling.inputs.features import TabularSequenceFeatures
    from modeling.tasks.next_item import NextItemPredictionTask

    if settings.features == "ids":
        features, vectors = [feature for feature in features if feature.item], {}
    width = settings.d_model
    inputs = TabularSequenceFeatures(
        features,
        max_sequence_length,
        continuous_projection=max(8, width // 4),
        projection=MLPBlock([width], activation=None) if len(features) > 1 or vectors else None,
        masking=settings.objective,
        masking_arguments=_masking_arguments(settings),
        embedding_dims={feature.name: width for feature in features if feature.item},
        infer_embedding_sizes=True,
        pretrained_output_dims=width if vectors else None,
        item_vectors={name: table.shape[1] for name, table in vectors.items()},
    )
    if vectors:
        cast(ItemVectors, inputs.to_merge["item_vectors_module"]).fill(vectors)
    config = transformer_registry[settings.architecture].build(
        width,
        settings.n_head,
        settings.n_layer,
        max_sequence_length,
        dropout=settings.dropout,
        initializer_range=0.02,
        **_times(features, settings.architecture),
    )
    task = NextItemPredictionTask(
        loss=settings.loss, weight_tying=True, label_smoothing=settings.label_smoothing, output_bias=True
    )
    if inputs.projection is not None:
        # Begin with the item alone: side features earn their influence, instead of diluting the item's first.
        linear = cast(MLPBlock, inputs.projection).layers[0]
        assert isinstance(linear, nn.Linear)
        with torch.no_grad():
            linear.weight.normal_(std=0.02)
            linear.weight[:, inputs.item_slice()] = torch.eye(width)
            linear.bias.zero_()
    model: Model = config.to_torch_model(inputs, task)
    return model


def _times(features: list[Feature], architecture: str) -> dict[str, Any]:
    """What tells a backbone that reads times where they are, and what they were normalised with."""
    found = [f for f in features if f.name == SINCE_PREVIOUS and f.kind == "continuous" and f.sequence]
    if architecture != "hstu" or not found:
        return {}
    # A column that never changes was normalised with nothing.
    return {"time_feature": SINCE_PREVIOUS, "time_mean": found[0].mean, "time_deviation": found[0].deviation or 1.0}


def _masking_arguments(settings: ModelSettings) -> dict[str, Any] | None:
    """What the settings say to the objective."""
    if settings.objective == "clm":
        return None
    names = ["last_item_probability"]
    if settings.objective != "plm":
        names.append("mlm_probability")
    if settings.objective == "rtd":
        names += ["discriminator_loss_weight", "sample_from_batch"]
    return {name: getattr(settings, name) for name in names}
