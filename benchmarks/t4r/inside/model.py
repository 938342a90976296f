"""A model of Transformers4Rec, put together as its documentation does."""

from __future__ import annotations

import json
from typing import Any

import transformers4rec.torch as tr  # type: ignore[import-not-found]
from merlin_standard_lib import Schema  # type: ignore[import-not-found]

CONFIGS = {"gpt2": tr.GPT2Config, "xlnet": tr.XLNetConfig, "electra": tr.ElectraConfig, "albert": tr.AlbertConfig}


def read(schema: dict[str, Any]) -> Any:
    """Its schema, from what `benchmarks.t4r.schema.schema_of` made."""
    return Schema().from_json(json.dumps(schema))


def build(schema: Any, limit: int, settings: dict[str, Any]) -> Any:
    """A model with random weights.

    What the settings do not name is left as Transformers4Rec has it; item vectors are as wide as the model, so that
    tying the weights needs no projection.

    Parameters
    ----------
    schema : Schema
        The inputs.
    limit : int
        The most events of a session.
    settings : dict
        ``architecture``, ``masking``, ``loss``, ``d_model``, ``n_layer``, ``n_head``, ``dropout``; ``negatives`` with
        the loss "sampled-softmax".
    """
    width = settings["d_model"]
    item = schema.select_by_tag("item_id").column_names[0]
    continuous = bool(schema.select_by_tag("continuous").column_names)
    several = len(schema.column_names) > 1
    inputs = tr.TabularSequenceFeatures.from_schema(
        schema,
        max_sequence_length=limit,
        aggregation="concat",
        continuous_projection=width if continuous else None,
        d_output=width if several else None,
        masking=settings["masking"],
        embedding_dims={item: width},
        infer_embedding_sizes=several,
    )
    config = CONFIGS[settings["architecture"]].build(
        d_model=width,
        n_head=settings["n_head"],
        n_layer=settings["n_layer"],
        total_seq_length=limit,
        dropout=settings["dropout"],
    )
    sampled = settings["loss"] == "sampled-softmax"
    task = tr.NextItemPredictionTask(
        weight_tying=True, sampled_softmax=sampled, max_n_samples=settings["negatives"] if sampled else 100
    )
    return config.to_torch_model(inputs, task, max_sequence_length=limit)
