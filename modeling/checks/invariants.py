"""What must not change the scores of a session: the event to predict, padding, other sessions, events cut off.

The models are loud and in double precision (`modeling.backbones.precision`), where two orders of addition differ by
some 1e-13 and a leak by 1e-3 and more; `LIMIT_OF_ROUNDING` lies far from both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modeling.checks.result import Failed, Result, at_most
from modeling.checks.sessions import LENGTHS, Batch, altered, batch_of, difference, scores, session
from modeling.sequence import SessionStates

LIMIT_OF_ROUNDING = 1e-9
# The last event that is seen moves the scores by at least this share of their spread, or the model is deaf.
INFLUENCE = 1e-4


def _batch(model: Any, **options: Any) -> Batch:
    return batch_of(model.inputs.features, LENGTHS, **options)


def no_leak(model: Any) -> Result:
    """Neither the scores nor the training answers depend on the event that they must predict, or on what follows it.

    Evaluation: the last event of a session is exchanged, and the scores for it must stay; exchanging the event before
    it must move them. Training: each position with a target is read while the vector of its target event is
    disturbed (under a causal objective, with all that follow; under a permuted one, with all that it must not see).
    """
    batch, features = _batch(model), model.inputs.features
    before = scores(model, batch, testing=True)
    worst = 0.0
    for row, n in enumerate(LENGTHS):
        if n >= 2:
            worst = max(worst, difference(before, scores(model, altered(features, batch, row, n - 1), testing=True)))
            influence = scores(model, altered(features, batch, row, n - 2), testing=True)
            moved = difference(before[row : row + 1], influence[row : row + 1])
            if moved < INFLUENCE:
                raise Failed(f"the last event that is seen moves the scores by {moved:.0e} of their spread only")
    if worst > LIMIT_OF_ROUNDING:
        return at_most("no_leak", worst, LIMIT_OF_ROUNDING, "the scores change with the event to predict")
    trained = _training_leak(model, batch)
    which = "a training answer changes with what it must not see" if trained > LIMIT_OF_ROUNDING else ""
    return at_most("no_leak", max(worst, trained), LIMIT_OF_ROUNDING, which)


def _states(model: Any, batch: Batch, place: Tensor | None) -> SessionStates:
    """Training states, with the vectors disturbed where `place` [B, L] says so; the same choices of the objective."""
    inputs = model.inputs
    embed = inputs.embed

    def disturbed(columns: Batch) -> Tensor:
        vectors: Tensor = embed(columns)
        if place is None:
            return vectors
        noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1), dtype=vectors.dtype)
        return vectors + noise * vectors.std() * place[..., None]

    torch.manual_seed(5)
    inputs.embed = disturbed
    try:
        with torch.no_grad():
            states: SessionStates = model.head.body(batch, training=True)
    finally:
        del inputs.embed
    return states


def _training_leak(model: Any, batch: Batch) -> float:
    states = _states(model, batch, None)
    if states.targets is None:
        raise Failed("training has no targets")
    values, targets = states.values, states.targets != 0
    if not torch.isfinite(values[targets]).all():
        raise Failed("the training answers are not finite")
    size = float(values[targets].abs().max())
    columns = batch[model.inputs.item.name].shape[1]
    position = torch.arange(columns)
    causal = model.inputs.masking.name == "clm"
    worst, reacted = 0.0, False
    for column in range(values.shape[1]):
        rows = targets[:, column]
        if not rows.any():
            continue
        hidden = torch.zeros_like(batch[model.inputs.item.name], dtype=torch.bool)
        hidden[rows] = position > column if causal else position == column
        if states.visible is not None:
            hidden |= rows[:, None] & ~states.visible[:, column]
        after = _states(model, batch, hidden).values
        change = (after[rows, column] - values[rows, column]).abs().max()
        worst = max(worst, float(change) / size)
        seen = _states(model, batch, rows[:, None] & ~hidden).values
        reacted |= bool((seen[rows, column] - values[rows, column]).abs().max() > INFLUENCE * size)
    if not reacted:
        raise Failed("no training answer depends on any event")
    return worst


def padding(model: Any) -> Result:
    """More padding, or none, gives the same scores."""
    batch = _batch(model)
    found = scores(model, batch)
    worst = 0.0
    for extra in (1, 4):
        wider = {name: torch.nn.functional.pad(values, [0, extra]) for name, values in batch.items()}
        worst = max(worst, difference(found, scores(model, wider)))
    for row, n in enumerate(LENGTHS):
        padded = {name: values[row : row + 1] for name, values in batch.items()}
        worst = max(worst, difference(scores(model, padded), scores(model, session(batch, row, 0, n))))
    return at_most("padding", worst, LIMIT_OF_ROUNDING, "" if worst <= LIMIT_OF_ROUNDING else "padding changes scores")


def batch_mates(model: Any) -> Result:
    """A session has the same scores alone and among others, whatever the others are."""
    batch, features = _batch(model), model.inputs.features
    together = scores(model, batch)
    worst = 0.0
    for row in range(len(LENGTHS)):
        alone = {name: values[row : row + 1] for name, values in batch.items()}
        worst = max(worst, difference(together[row : row + 1], scores(model, alone)))
        others = scores(model, altered(features, batch, row, 0, LENGTHS[row]))
        rest = [other for other in range(len(LENGTHS)) if other != row]
        worst = max(worst, difference(together[rest], others[rest]))
    detail = "" if worst <= LIMIT_OF_ROUNDING else "the other sessions of a batch change scores"
    return at_most("batch_mates", worst, LIMIT_OF_ROUNDING, detail)


def evaluation_is_inference(model: Any) -> Result:
    """The held-out item's scores are those that the shortened session gets when it is served."""
    batch = _batch(model)
    held_out = scores(model, batch, testing=True)
    worst = 0.0
    for row, n in enumerate(LENGTHS):
        if n >= 2:
            served = scores(model, session(batch, row, 0, n - 1))
            worst = max(worst, difference(held_out[row : row + 1], served))
    detail = "" if worst <= LIMIT_OF_ROUNDING else "a request is scored otherwise than in evaluation"
    return at_most("evaluation_is_inference", worst, LIMIT_OF_ROUNDING, detail)


def most_recent(model: Any) -> Result:
    """Of a session that is too long the end is kept: what came before it has no influence, its last event has."""
    limit = model.max_sequence_length
    lengths = (limit + 4, limit // 2)
    features = model.inputs.features
    long = batch_of(features, lengths)
    found = scores(model, long)
    kept = limit - 1
    recent = {name: values[:1, lengths[0] - kept :] for name, values in long.items()}
    worst = difference(found[:1], scores(model, recent))
    worst = max(worst, difference(found, scores(model, altered(features, long, 0, 0, lengths[0] - kept))))
    moved = difference(found[:1], scores(model, altered(features, long, 0, lengths[0] - 1))[:1])
    if moved < INFLUENCE:
        raise Failed(f"the last event moves the scores by {moved:.0e} of their spread only")
    detail = "" if worst <= LIMIT_OF_ROUNDING else "a long session is not scored by its end"
    return at_most("most_recent", worst, LIMIT_OF_ROUNDING, detail)
