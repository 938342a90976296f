"""A planted rule must be learned: the next item follows from the last two events, and from no fewer."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from modeling.checks.result import Failed, Result
from modeling.schema import Feature

ITEMS, RESERVED = 8, 3
RULE_FEATURES = (Feature("item", "categorical", ITEMS + RESERVED, RESERVED, True),)
RECALL = 0.95
# Training ends early when it has this much on sessions that are neither trained on nor tested.
_GOOD = 0.985
_STEPS, _BATCH, _EVERY, _RATE = 1500, 64, 25, 5e-3


def walks(count: int, longest: int, seed: int) -> Tensor:
    """Walks round the catalogue in strides of 1 or 2: x[t+1] = 2 x[t] - x[t-1] modulo the number of items.

    The last item alone leaves two that may follow; the last two leave one.

    Parameters
    ----------
    count : int
        Sessions.
    longest : int
        They have 3 to so many events.
    seed : int
        Of start, stride and length.

    Returns
    -------
    Tensor [count, longest], int64
        Item ids, right-padded with 0.
    """
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, ITEMS, (count, 1), generator=generator)
    stride = torch.randint(1, 3, (count, 1), generator=generator)
    n = torch.randint(3, longest + 1, (count, 1), generator=generator)
    position = torch.arange(longest)
    return (RESERVED + (start + stride * position) % ITEMS).masked_fill(position >= n, 0)


def recall_at_1(model: Any, items: Tensor) -> float:
    """Share of the sessions whose last item has the highest score."""
    with torch.no_grad():
        result = model({"item": items}, testing=True)
    return float((result["predictions"].argmax(1) == result["labels"]).double().mean())


def learns(model: Any, seed: int = 0, steps: int = _STEPS) -> Result:
    """Trained on planted walks, the model finds the last item of other walks: recall@1 of 0.95 at least.

    Parameters
    ----------
    model : Model
        Fresh, with one feature, "item", of 11 codes (`RULE_FEATURES`). It is trained in place. An objective that can
        hide the last event alone is told to: that teaches what is asked with the fewest steps.
    seed : int
        Of the sessions and of training.
    steps : int
        At most so many steps; it stops early when validation sessions are predicted.
    """
    masking = model.inputs.masking
    if hasattr(masking, "last_item_probability"):
        masking.last_item_probability = 1.0
    longest = model.max_sequence_length
    valid, test = walks(128, longest, seed + 10_001), walks(256, longest, seed + 10_002)
    torch.manual_seed(seed)
    matrices = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(matrices, lr=_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    began, done, found = time.perf_counter(), 0, 0.0
    for done in range(1, steps + 1):
        share = done / steps
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, done / 20) * (0.1 + 0.45 * (1 + math.cos(math.pi * share)))
        model.train()
        loss = model({"item": walks(_BATCH, longest, seed * 100_000 + done)}, training=True)["loss"]
        if not torch.isfinite(loss):
            raise Failed(f"the loss is not finite after {done} steps")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(matrices, 1.0)
        optimizer.step()
        if done % _EVERY == 0:
            found = recall_at_1(model.eval(), valid)
            if found >= _GOOD:
                break
    reached = recall_at_1(model.eval(), test)
    detail = f"recall@1 {reached:.3f} after {done} steps, {time.perf_counter() - began:.1f} s"
    return Result("learns", reached >= RECALL, reached, RECALL, detail)
