"""The next item, by a score for every item of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modeling.blocks.mlp import MLPBlock
from modeling.losses.cross_entropy import linear_cross_entropy
from modeling.serialization import part


@part
class NextItemPredictionTask(nn.Module):
    """Scores every item as the next one, trained by exact cross-entropy over the catalogue.

    Parameters
    ----------
    weight_tying : bool
        Score by the inner product with the item's input embedding (projected linearly where widths differ).
    softmax_temperature : float
        Scores are divided by it.
    label_smoothing : float
        See `linear_cross_entropy`.
    output_bias : bool
        Learn a number an item that is added to its score: its popularity.
    target_dim : int, optional
        The catalogue's size, reserved ids included; the item feature's cardinality by default.
    metrics : sequence, optional
        Metrics to evaluate with, such as `NDCGAt`.
    """

    def __init__(
        self,
        weight_tying: bool = False,
        softmax_temperature: float = 1,
        label_smoothing: float = 0.0,
        output_bias: bool = False,
        target_dim: int | None = None,
        padding_idx: int = 0,
        metrics: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        if softmax_temperature <= 0:
            raise ValueError(f"softmax_temperature must be positive, not {softmax_temperature}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
        if padding_idx != 0:
            raise ValueError(f"padding_idx must be 0, not {padding_idx}")
        self.weight_tying = weight_tying
        self.softmax_temperature = softmax_temperature
        self.label_smoothing = label_smoothing
        self.output_bias = output_bias
        self.target_dim = target_dim
        self.metrics = list(metrics)
        self.reserved = 1
        self.projection: nn.Module | None = None
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None

    def config(self) -> dict[str, Any]:
        """The constructor's arguments; metrics are not part of a saved model."""
        names = ("weight_tying", "softmax_temperature", "label_smoothing", "output_bias", "target_dim")
        return {name: getattr(self, name) for name in names}

    def build(self, inputs: Any, width: int) -> None:
        """Create the parameters for answers of width `width` about the items of `inputs`."""
        classes, item_dim = inputs.item_table.weight.shape
        if self.target_dim not in (None, classes):
            raise ValueError(f"target_dim is {self.target_dim}, the schema's item column has {classes} ids")
        self.target_dim = classes
        self.reserved = inputs.item.reserved
        if self.weight_tying and width != item_dim:
            self.projection = MLPBlock([item_dim], activation=None).build(width)
        if not self.weight_tying:
            self.weight = nn.Parameter(torch.empty(classes, width).normal_(std=width**-0.5))
        if self.output_bias:
            self.bias = nn.Parameter(torch.zeros(classes))

    def _answers(self, answers: Tensor) -> Tensor:
        if self.projection is not None:
            answers = self.projection(answers)
        return answers / self.softmax_temperature if self.softmax_temperature != 1 else answers

    def scores(self, answers: Tensor, item_vectors: Tensor) -> Tensor:
        """Scores [B, target_dim] of answers [B, width]; -inf for reserved ids."""
        weight = item_vectors if self.weight is None else self.weight
        scores = self._answers(answers) @ weight.T
        if self.bias is not None:
            scores = scores + self.bias
        scores[:, : self.reserved] = float("-inf")
        return scores

    def loss(self, answers: Tensor, item_vectors: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of answers [N, width] against item ids [N], none of them reserved.

        Reserved ids are no classes: they get neither probability nor gradient.
        """
        weight = item_vectors if self.weight is None else self.weight
        bias = self.bias[self.reserved :] if self.bias is not None else None
        return linear_cross_entropy(
            self._answers(answers), weight[self.reserved :], bias, targets - self.reserved, self.label_smoothing
        )
