"""What a loss over a catalogue is: it sees vectors, never a matrix of targets x items."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Loss(nn.Module):
    """Base of the losses. The score of an item is the inner product of an answer with its vector, plus its bias.

    Losses are registered with `modeling.serialization.part` so that a model that was trained with them can be saved.
    """

    name = ""
    # Whether it looks at the caller's autocast itself; others get it switched off, for sums over the catalogue.
    mixes_precision = False

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    def build(self, cardinality: int, reserved: int) -> None:
        """Learn how many ids there are, reserved ones included; called once, by the task."""

    def forward(
        self, answers: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, reserved: int = 0
    ) -> Tensor:
        """Mean loss over the targets.

        Parameters
        ----------
        answers : Tensor [N, D], float
            A vector a target, N at least 1.
        weight : Tensor [C, D], float
            A vector an id.
        bias : Tensor [C], optional
            A number an id.
        targets : Tensor [N], int64
            Ids, `reserved` to C - 1.
        reserved : int
            Ids below it are no classes: they have no probability, are never drawn and get no gradient.

        Returns
        -------
        Tensor, scalar
        """
        raise NotImplementedError
