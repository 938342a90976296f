"""Replaced token detection: the second pass over a batch, in which every event is judged.

See `modeling.masking.replacement` for where it comes from.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modeling.masking.base import plain_states
from modeling.masking.replacement import replace
from modeling.sequence import SessionStates


class Detection(nn.Module):
    """A discriminator beside a body that is trained as generator.

    Parameters
    ----------
    body : SequentialBlock or PostContextFusion
        The generator, whose inputs have a `ReplacementLanguageModeling`.

    Raises
    ------
    ValueError
        When an untied discriminator is asked for, and the body cannot be made twice.
    """

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.trunk: Any = None
        if not body.inputs.masking.tied_generator:
            if not hasattr(body, "fresh_rest"):
                raise ValueError("tied_generator=False needs a SequentialBlock as body")
            self.trunk = body.fresh_rest()
        width = body.output_dim
        self.judge = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def logits(self, body: Any, columns: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """How surely each event was replaced [B, L], and which are events [B, L]."""
        inputs = body.inputs
        items = columns[inputs.item.name]
        trunk = body if self.trunk is None else self.trunk
        states: SessionStates = trunk.rest(plain_states(inputs.embed(columns), items), columns)
        return self.judge(states.values)[..., 0], items != 0

    def loss(self, body: Any, task: Any, states: SessionStates, columns: dict[str, Tensor]) -> tuple[Tensor, int]:
        """Weighted sum of the generator's and the discriminator's mean losses, and the generator's targets.

        Parameters
        ----------
        body, task : nn.Module
            The generator and the next-item task that scores its answers.
        states : SessionStates
            What came out of the generator, with targets.
        columns : dict of Tensor
            The batch.
        """
        masking, inputs = body.inputs.masking, body.inputs
        generator, count = task.loss(states, inputs, None)
        if not count:
            return generator, 0
        assert states.targets is not None
        with torch.no_grad():
            answers, vectors = task.blocked(states).answers(), inputs.item_table.weight
        corrupted, replaced = replace(
            columns, inputs.item.name, states.targets != 0, lambda some: task.scores(answers[some], vectors), masking
        )
        logits, events = self.logits(body, corrupted)
        judged = nn.functional.binary_cross_entropy_with_logits(logits[events], replaced[events].to(logits.dtype))
        return masking.generator_loss_weight * generator + masking.discriminator_loss_weight * judged, count
