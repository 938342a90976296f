"""The next item, by a score for every item of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from modeling.blocks.mlp import MLPBlock
from modeling.losses.base import Loss
from modeling.losses.cross_entropy import CrossEntropy
from modeling.losses.registry import loss_from
from modeling.losses.sampled import SampledSoftmax
from modeling.ranking_metric import AvgPrecisionAt, NDCGAt, RecallAt
from modeling.sequence import SessionStates
from modeling.serialization import part
from modeling.tasks.base import PredictionTask, no_loss


@part
class NextItemPredictionTask(PredictionTask):
    """Scores every item as the next one.

    Parameters
    ----------
    loss : str, Loss or torch loss
        A name of `loss_registry`: "cross-entropy" (exact, over the catalogue), "sampled-softmax", "gbce", "bpr-max",
        "top1-max"; a `Loss` with arguments of its own; or any torch loss of logits [N, items] and classes [N].
        Sampled losses sample only in training; predictions are always over the full catalogue.
    metrics : iterable, optional
        NDCG, MAP and recall at 10 and 20 by default.
    task_block : nn.Module, optional
        See `PredictionTask`.
    task_name : str
        Key of the outputs.
    weight_tying : bool
        Score by the inner product with the item's input embedding (projected linearly where widths differ).
    softmax_temperature : float
        Scores are divided by it.
    padding_idx : int
        Only 0 is supported.
    target_dim : int, optional
        The catalogue's size, reserved ids included; the item feature's cardinality by default.
    sampled_softmax : bool
        The same as ``loss=SampledSoftmax(max_n_samples)``.
    max_n_samples : int
        Negatives a batch, with `sampled_softmax`.
    label_smoothing : float
        The same as ``loss=CrossEntropy(label_smoothing)``.
    output_bias : bool
        Learn a number an item that is added to its score: its popularity.

    Raises
    ------
    ValueError
        On arguments that contradict each other.
    """

    held_out = True

    def __init__(
        self,
        loss: str | Loss | Any = "cross-entropy",
        metrics: Iterable[Any] | None = None,
        task_block: nn.Module | None = None,
        task_name: str = "next-item",
        weight_tying: bool = False,
        softmax_temperature: float = 1,
        padding_idx: int = 0,
        target_dim: int | None = None,
        sampled_softmax: bool = False,
        max_n_samples: int = 100,
        label_smoothing: float = 0.0,
        output_bias: bool = False,
    ) -> None:
        if metrics is None:
            metrics = [metric([10, 20], labels_onehot=True) for metric in (NDCGAt, AvgPrecisionAt, RecallAt)]
        super().__init__(None, task_name, task_block, metrics)
        if softmax_temperature <= 0:
            raise ValueError(f"softmax_temperature must be positive, not {softmax_temperature}")
        if padding_idx != 0:
            raise ValueError(f"padding_idx must be 0, not {padding_idx}")
        self.objective = _objective(loss, sampled_softmax, max_n_samples, label_smoothing)
        self.weight_tying = weight_tying
        self.softmax_temperature = softmax_temperature
        self.output_bias = output_bias
        self.target_dim = target_dim
        self.reserved = 1
        self.projection: nn.Module | None = None
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        self.objective.config()  # a loss that cannot be saved says so here
        names = ("weight_tying", "softmax_temperature", "output_bias", "target_dim")
        return {**super().config(), "loss": self.objective, **{name: getattr(self, name) for name in names}}

    def build_output(self, inputs: Any, width: int) -> None:
        """Create the parameters for answers of width `width` about the items of `inputs`."""
        classes, item_dim = inputs.item_table.weight.shape
        if self.target_dim not in (None, classes):
            raise ValueError(f"target_dim is {self.target_dim}, the schema's item column has {classes} ids")
        self.target_dim = classes
        self.reserved = inputs.item.reserved
        self.objective.build(classes, self.reserved)
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
        """Scores of all ids.

        Parameters
        ----------
        answers : Tensor [N, width]
            Vectors of states that went through `blocked`.
        item_vectors : Tensor [target_dim, D]
            The item table.

        Returns
        -------
        Tensor [N, target_dim]
            -inf for reserved ids.
        """
        weight = item_vectors if self.weight is None else self.weight
        scores = self._answers(answers) @ weight.T
        if self.bias is not None:
            scores = scores + self.bias
        scores[:, : self.reserved] = float("-inf")
        return scores

    def predict(self, states: SessionStates, inputs: Any) -> Tensor:
        """Scores [B, target_dim] for what follows each session; -inf for reserved ids."""
        return self.scores(self.blocked(states).answers(), inputs.item_table.weight)

    def queries(self, states: SessionStates) -> Tensor:
        """Vectors [B, D] of the sessions: scores are their products with `catalogue`, and reserved ids have none."""
        return self._answers(self.blocked(states).answers())

    def catalogue(self, inputs: Any) -> tuple[Tensor, Tensor | None]:
        """The items' vectors [target_dim, D] that `queries` are multiplied with, and what is added [target_dim]."""
        return inputs.item_table.weight if self.weight is None else self.weight, self.bias

    def loss(self, states: SessionStates, inputs: Any, targets: Tensor | None = None) -> tuple[Tensor, int]:
        """Mean loss over the targets, and their number.

        Reserved ids are no classes: they get neither probability nor gradient.

        Parameters
        ----------
        states : SessionStates
            With targets of the objective, or read once a session.
        inputs : nn.Module
            The input module.
        targets : Tensor [B], int64, optional
            For states without targets: what followed each session. Reserved ids among them are left out.

        Raises
        ------
        ValueError
            When there are targets twice, or none.
        """
        if (targets is None) == (states.targets is None):
            raise ValueError("the next-item loss takes either states with targets, or the targets of the sessions")
        states = self.blocked(states)
        answers = states.answers()
        if targets is None:
            assert states.targets is not None
            targets = states.targets[states.targets != 0]
        else:
            targets = targets.reshape(-1)
            answers, targets = answers[targets >= self.reserved], targets[targets >= self.reserved]
        if not len(targets):
            return no_loss(states)
        weight = inputs.item_table.weight if self.weight is None else self.weight
        answers = self._answers(answers).to(weight.dtype)
        # Sums over the catalogue need full precision, whatever the body was computed in; some losses see to that.
        kind = answers.device.type
        mixes = self.objective.mixes_precision and torch.is_autocast_enabled(kind)
        with torch.autocast(kind, torch.get_autocast_dtype(kind), enabled=mixes):
            return self.objective(answers, weight, self.bias, targets, self.reserved), len(targets)

    def comparable(self, predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Rows whose item [B] can be recommended: padding and ids that training never saw are no targets."""
        targets = targets.reshape(-1)
        known = targets >= self.reserved
        return predictions[known], targets[known]


def _objective(loss: Any, sampled: bool, n_samples: int, smoothing: float) -> Loss:
    chosen = loss_from(loss)
    if sampled and not isinstance(chosen, SampledSoftmax):
        if not isinstance(chosen, CrossEntropy) or chosen.label_smoothing:
            raise ValueError("give sampled_softmax or a loss, not both")
        chosen = SampledSoftmax(n_samples)
    if smoothing:
        if not isinstance(chosen, CrossEntropy) or chosen.label_smoothing not in (0, smoothing):
            raise ValueError("label_smoothing is for the loss 'cross-entropy' only")
        chosen = CrossEntropy(smoothing)
    return chosen
