"""The model: sessions in, scores of the next item out; saved as data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modeling.checkpoint import load, save
from modeling.evidence.module import ItemEvidence
from modeling.padding import pad_inputs, prefixes
from modeling.ranking import EXCLUDE, best_by_blocks, restrict, strike
from modeling.sequence import lengths, most_recent, without_last
from modeling.serialization import part

REDUCTIONS = ("mean", "sum")


@part
class Model(nn.Module):
    """Heads, called in one of three ways.

    ``model(inputs)`` scores what comes after each session; ``model(inputs, testing=True)`` removes the last
    event of each session with all its features, and then does exactly the same; ``model(inputs, training=True)``
    computes the loss. Tasks other than the next item see the whole session when testing.

    Parameters
    ----------
    *head : Head
        One or more.
    head_weights : sequence of float, optional
        Weight of each head in the loss; 1 by default.
    head_reduction : {"mean", "sum"}
        How the weighted losses of the heads become one.
    optimizer : type of torch.optim.Optimizer
        What `fit` trains with when it is told nothing else.
    name : str, optional
        Accepted for compatibility.
    max_sequence_length : int, optional
        The most events of a session, the one to predict among them; the inputs' by default, which it cannot exceed.
    top_k : int, optional
        Answer with the best `top_k` only: ``(scores, ids)`` instead of all scores.
    evidence : ItemEvidence, optional
        Counts that are added to the scores of the next item; see `modeling.evidence`. Training does not see it.

    Raises
    ------
    ValueError
        When the arguments do not fit each other.
    """

    evidence: ItemEvidence | None

    def __init__(
        self,
        *head: Any,
        head_weights: Sequence[float] | None = None,
        head_reduction: str = "mean",
        optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
        name: str | None = None,
        max_sequence_length: int | None = None,
        top_k: int | None = None,
        evidence: ItemEvidence | None = None,
    ) -> None:
        super().__init__()
        if not head:
            raise ValueError("a model needs a head")
        if head_weights is not None and len(head_weights) != len(head):
            raise ValueError(f"there are {len(head)} heads and {len(head_weights)} head_weights")
        if head_reduction not in REDUCTIONS:
            raise ValueError(f"head_reduction must be one of {', '.join(REDUCTIONS)}, not {head_reduction!r}")
        self.heads = nn.ModuleList(head)
        tasks = [task.task_name for one in head for task in one.tasks]
        if len(set(tasks)) < len(tasks):
            raise ValueError(f"the heads' tasks need names of their own, found {', '.join(tasks)}")
        self.head_weights = [float(weight) for weight in head_weights or [1.0] * len(head)]
        self.head_reduction = head_reduction
        self.optimizer = optimizer
        self.top_k = top_k
        self.evidence = evidence
        own = getattr(self.inputs, "max_sequence_length", None)
        if max_sequence_length and own and not 2 <= max_sequence_length <= own:
            raise ValueError(f"max_sequence_length must be from 2 to the inputs' {own}, not {max_sequence_length}")
        self._limit = max_sequence_length

    def config(self) -> dict[str, Any]:
        """The heads, described."""
        names = ("head_weights", "head_reduction", "top_k", "evidence")
        own = {name: getattr(self, name) for name in names}
        return {"heads": self._heads, "max_sequence_length": self._limit, **own}

    @classmethod
    def from_config(cls, heads: list[Any], **arguments: Any) -> Model:
        """From heads that are already restored."""
        return cls(*heads, **arguments)

    @property
    def _heads(self) -> list[Any]:
        return list(self.heads)

    @property
    def head(self) -> Any:
        """The head that predicts the next item, or the first."""
        return next((head for head in self._heads if any(task.held_out for task in head.tasks)), self._heads[0])

    @property
    def inputs(self) -> Any:
        """That head's input module."""
        return self.head.inputs

    @property
    def max_sequence_length(self) -> int:
        """The most events of a session, the one to predict among them."""
        return int(self._limit or self.inputs.max_sequence_length)

    @property
    def catalogue_size(self) -> int:
        """Number of items that can be recommended."""
        return int(self.inputs.item.cardinality - self.inputs.item.reserved)

    @property
    def features(self) -> list[Any]:
        """What the heads need of a batch: `Feature` records, each once."""
        return list({feature.name: feature for head in self._heads for feature in head.body.features}.values())

    @property
    def feature_names(self) -> list[str]:
        """The columns that the heads need."""
        return list(dict.fromkeys(name for head in self._heads for name in head.feature_names))

    @property
    def target_names(self) -> list[str]:
        """The columns that tasks learn from, beside the item ids."""
        return list(dict.fromkeys(name for head in self._heads for name in head.target_names))

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        targets: Any = None,
        training: bool = False,
        testing: bool = False,
        top_k: int | None = None,
        exclude: str = "none",
        excluded: Tensor | None = None,
        candidates: Tensor | None = None,
    ) -> Any:
        """Score, test or train.

        Parameters
        ----------
        inputs : mapping of Tensor
            Columns by name: int64 codes and float32 numbers, [B, L] right-padded with 0 (or ``name__values`` and
            ``name__offsets``), [B, L, V] for vectors, [B] for features of the session. Others are ignored.
        targets : Tensor or mapping of str to Tensor, optional
            Target columns of tasks other than the next item (a tensor if there is one such task); taken from
            `inputs` when they are there.
        training, testing : bool
            See the class.
        top_k : int, optional
            Answer with the best `top_k` items, instead of all scores; the model's own `top_k` by default.
        exclude : {"none", "last", "seen"}
            Items of the session that are not recommended.
        excluded, candidates : Tensor [M] or [B, M], int64, optional
            Item ids that are not recommended; ids of the only ones that may be.

        Returns
        -------
        Tensor [B, C] or tuple
            Scores by item id, -inf for what is not recommended; with `top_k` the best scores [B, top_k] and their
            ids [B, top_k] (0 where nothing is left). Of other tasks what they predict; of several tasks a
            dictionary by task name.
        dict
            ``{"loss", "targets"}`` in training (`targets` is their number), ``{"predictions", "labels"}`` in testing
            (labels [B]; 0 where the session had no event to predict).

        Raises
        ------
        ValueError
            When a column is missing or an argument cannot be used.
        """
        if exclude not in EXCLUDE:
            raise ValueError(f"exclude must be one of {', '.join(EXCLUDE)}, not {exclude!r}")
        columns, wanted = self._select(inputs, targets)
        if training:
            return self._train(self._recent(columns), wanted)
        if testing:
            return self._test(columns, wanted)
        k = top_k or self.top_k
        found = self._predict(columns)
        for name, held_out in self._tasks():
            if held_out:
                items = columns[self.inputs.item.name]
                scores = restrict(strike(found[name], items, exclude), excluded, candidates)
                found[name] = scores if k is None else best_by_blocks(scores, k)
        return found if len(found) > 1 else next(iter(found.values()))

    def _tasks(self) -> list[tuple[str, bool]]:
        return [(task.task_name, task.held_out) for head in self._heads for task in head.tasks]

    def _select(self, inputs: Mapping[str, Tensor], targets: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        inputs = pad_inputs(inputs)
        missing = [name for name in self.feature_names if name not in inputs]
        if missing:
            raise ValueError(f"the batch lacks the feature {missing[0]!r}; it has {', '.join(map(repr, inputs))}")
        names = self.target_names
        if isinstance(targets, Tensor):
            if len(names) != 1:
                raise ValueError(f"give the targets by name: {', '.join(names) or 'the tasks need none'}")
            targets = {names[0]: targets}
        wanted = {**{n: inputs[n] for n in names if n in inputs}, **(targets or {})}
        return {name: inputs[name] for name in self.feature_names}, wanted

    def _recent(self, columns: dict[str, Tensor], less: int = 0) -> dict[str, Tensor]:
        """The most recent events, as many as training sees or so many `less`."""
        name = getattr(self.inputs, "length_name", None)
        if name is None:
            return columns
        return most_recent(columns, name, self.max_sequence_length - less, self._events)

    @property
    def _events(self) -> set[str]:
        """The columns that have a value an event."""
        return {feature.name for feature in self.features if feature.sequence}

    def _train(self, columns: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Any]:
        found = [head.loss(columns, targets) for head in self._heads]
        if len(found) == 1 and found[0][0].dim():
            return {"loss": found[0][0], "targets": found[0][1]}
        losses = torch.stack([loss.mean() * w for (loss, _), w in zip(found, self.head_weights, strict=True)])
        loss = losses.mean() if self.head_reduction == "mean" else losses.sum()
        return {"loss": loss, "targets": sum(count for _, count in found)}

    def _predict(self, columns: dict[str, Tensor], names: Sequence[str] | None = None) -> dict[str, Any]:
        # Training predicts from at most this many events; see TabularSequenceFeatures.
        recent = self._recent(columns, less=1)
        found = {name: value for head in self._heads for name, value in head.predict(recent, names).items()}
        if self.evidence is not None:
            items = recent[self.inputs.item.name]
            own = {name for name, held_out in self._tasks() if held_out} & found.keys()
            found.update({name: self.evidence.added(found[name], items) for name in own})
        return found

    def scores(self, columns: dict[str, Tensor]) -> Tensor:
        """Scores of the next item [B, cardinality] for columns of at most ``max_sequence_length - 1`` events."""
        found: Tensor = self.head.scores(columns)
        return found if self.evidence is None else self.evidence.added(found, columns[self.inputs.item.name])

    def _test(self, columns: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Any]:
        next_item = [name for name, held_out in self._tasks() if held_out]
        others = [name for name, held_out in self._tasks() if not held_out]
        predictions: dict[str, Any] = {}
        labels: dict[str, Any] = {}
        if next_item:
            item = self.inputs.item.name
            last_only = self.inputs.masking.eval_on_last_item_seq_only
            past, label = (without_last if last_only else prefixes)(columns, item, self._events)
            predictions.update(self._predict(past, next_item))
            # A session of one event has nothing before it to predict from.
            empty = lengths(past[item]) == 0
            labels.update({name: label.masked_fill(empty, 0) for name in next_item})
        if others:
            predictions.update(self._predict(columns, others))
            names = {task.task_name: task.target_name for head in self._heads for task in head.tasks}
            labels.update({name: targets[names[name]] for name in others if names[name] in targets})
        if len(predictions) == 1:
            (name,) = predictions
            return {"predictions": predictions[name], "labels": labels.get(name)}
        return {"predictions": predictions, "labels": labels}

    def fit(self, dataloader: Any, **options: Any) -> list[float]:
        """Train on batches; see `modeling.loop.fit`."""
        from modeling.loop import fit

        return fit(self, dataloader, **options)

    def evaluate(self, dataloader: Any, mode: str = "eval") -> dict[str, float]:
        """The tasks' metrics over batches; see `modeling.loop.evaluate`."""
        from modeling.loop import evaluate

        return evaluate(self, dataloader, mode)

    def save(self, path: Path | str, extra: dict[str, Any] | None = None) -> None:
        """Write ``model.json`` and ``model.safetensors`` into a folder; see `modeling.checkpoint.save`."""
        save(self, path, extra)

    @classmethod
    def load(cls, path: Path | str) -> Model:
        """Read what `save` wrote, in evaluation mode; see `modeling.checkpoint.load`. Nothing is executed."""
        return load(path, cls)
