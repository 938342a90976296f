"""All checks of one architecture."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from modeling.backbones.precision import double, loud
from modeling.checks.exporting import exports
from modeling.checks.invariants import batch_mates, evaluation_is_inference, most_recent, no_leak, padding
from modeling.checks.learning import RULE_FEATURES, learns
from modeling.checks.result import Failed, Result
from modeling.checks.sessions import FEATURES, LIMIT
from modeling.schema import Feature

Maker = Callable[[Sequence[Feature], int], Any]

_OF_LOUD_MODELS: dict[str, Callable[[Any], Result]] = {
    "no_leak": no_leak,
    "padding": padding,
    "batch_mates": batch_mates,
    "evaluation_is_inference": evaluation_is_inference,
    "most_recent": most_recent,
}
CHECKS = ("no_leak", "padding", "batch_mates", "evaluation_is_inference", "most_recent", "learns", "exports")


def run_checks(make: Maker, names: Sequence[str] = CHECKS) -> list[Result]:
    """Check an architecture under an objective.

    Parameters
    ----------
    make : callable
        ``make(features, max_sequence_length)`` returns a fresh `Model` with one next-item task over these features.
        It should be small (a width of 32, two layers) and without dropout, or learning takes long.
    names : sequence of str
        Some of `CHECKS`.

    Returns
    -------
    list of Result
        One a name, in that order. A check that raises has failed, and its detail says why.
    """
    return [run_check(make, name) for name in names]


def run_check(make: Maker, name: str) -> Result:
    """One of `CHECKS`; see `run_checks`.

    Raises
    ------
    ValueError
        When there is no such check.
    """
    if name not in CHECKS:
        raise ValueError(f"there is no check {name!r}: choose among {', '.join(CHECKS)}")
    state = torch.get_rng_state()
    torch.manual_seed(7)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "learns":
                return learns(make(RULE_FEATURES, LIMIT))
            # Loud in single precision, so that a model saved and loaded has the very same numbers.
            model = loud(make(FEATURES, LIMIT)).double().eval()
            if name == "exports":
                return exports(model)
            with double():
                return _OF_LOUD_MODELS[name](model)
    except Failed as failure:
        return Result(name, False, math.nan, math.nan, str(failure))
    except Exception as error:  # whatever a backbone raises is its failure
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Result(name, False, math.nan, math.nan, f"{type(error).__name__}: {lines[0] if lines else ''}"[:300])
    finally:
        torch.set_rng_state(state)


def cell_maker(transformer: Callable[[int], Any], masking: str, width: int = 32) -> Maker:
    """A maker of small models around one backbone.

    Parameters
    ----------
    transformer : callable
        Takes `max_sequence_length` and returns a configuration or a backbone of width `width`.
    masking : str
        The objective.
    width : int
        Of the vectors between the input module and the backbone.
    """

    def make(features: Sequence[Feature], max_sequence_length: int) -> Any:
        from modeling.backbones.block import TransformerBlock
        from modeling.blocks.mlp import MLPBlock
        from modeling.blocks.sequential import SequentialBlock
        from modeling.inputs.features import TabularSequenceFeatures
        from modeling.model import Model
        from modeling.tasks.head import Head
        from modeling.tasks.next_item import NextItemPredictionTask

        inputs = TabularSequenceFeatures(
            features,
            max_sequence_length,
            continuous_projection=8,
            projection=MLPBlock([width], activation=None),
            masking=masking,
            embedding_dim_default=width,
            item_embedding_std=0.5,
        )
        body = SequentialBlock(inputs, TransformerBlock(transformer(max_sequence_length), inputs.masking))
        return Model(Head(body, NextItemPredictionTask(weight_tying=True, output_bias=True)))

    return make
