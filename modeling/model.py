"""The model: sessions in, scores of the next item out; saved as data only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common.errors import UserError
from modeling.sequence import most_recent, without_last
from modeling.serialization import describe, part, restore

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


@part
class Model(nn.Module):
    """A head, called in one of three ways.

    ``model(inputs)`` scores what comes after each session; ``model(inputs, testing=True)`` removes the last
    event of each session with all its features, and then does exactly the same; ``model(inputs, training=True)``
    computes the loss.

    Parameters
    ----------
    *head : Head
        One head.
    top_k : int, optional
        Answer with the best `top_k` only: ``(scores, ids)`` instead of all scores.
    max_sequence_length : int, optional
        Accepted for compatibility; the inputs know it.
    """

    def __init__(self, *head: Any, top_k: int | None = None, max_sequence_length: int | None = None) -> None:
        super().__init__()
        if len(head) != 1:
            raise ValueError(f"a model takes exactly one head, not {len(head)}")
        self.heads = nn.ModuleList(head)
        self.top_k = top_k

    def config(self) -> dict[str, Any]:
        """The head, described."""
        return {"heads": list(self.heads), "top_k": self.top_k}

    @classmethod
    def from_config(cls, heads: list[Any], top_k: int | None) -> Model:
        """From heads that are already restored."""
        return cls(*heads, top_k=top_k)

    @property
    def head(self) -> Any:
        """The head."""
        return self.heads[0]

    @property
    def inputs(self) -> Any:
        """The input module."""
        return self.head.inputs

    @property
    def max_sequence_length(self) -> int:
        """The most events of a session, the one to predict among them."""
        return int(self.inputs.max_sequence_length)

    @property
    def catalogue_size(self) -> int:
        """Number of items that can be recommended."""
        return int(self.inputs.item.cardinality - self.inputs.item.reserved)

    def forward(
        self, inputs: dict[str, Tensor], targets: Any = None, training: bool = False, testing: bool = False
    ) -> Any:
        """Score, test or train.

        Parameters
        ----------
        inputs : dict of Tensor [B, L]
            Columns by name, right-padded with 0: int64 codes and float32 numbers. Others are ignored.
        targets : optional
            Accepted for compatibility: the objective takes the targets from the item ids.
        training, testing : bool
            See the class.

        Returns
        -------
        Tensor [B, C] or tuple
            Scores by item id, -inf for reserved ids; with `top_k` the best scores and their ids.
        dict
            ``{"loss", "targets"}`` in training (`targets` is their number), ``{"predictions", "labels"}``
            in testing (labels [B]; 0 where the session had no event).
        """
        inputs = self._select(inputs)
        item = self.inputs.item.name
        if training:
            loss, count = self.head.loss(most_recent(inputs, item, self.max_sequence_length))
            return {"loss": loss, "targets": count}
        if testing:
            inputs, labels = without_last(inputs, item)
            return {"predictions": self._answer(inputs), "labels": labels}
        return self._answer(inputs)

    def _select(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        missing = [name for name in self.inputs.feature_names if name not in inputs]
        if missing:
            raise ValueError(f"the batch lacks the feature {missing[0]!r}; it has {', '.join(map(repr, inputs))}")
        return {name: inputs[name] for name in self.inputs.feature_names}

    def _answer(self, inputs: dict[str, Tensor]) -> Any:
        # Training predicts from at most this many events; see TabularSequenceFeatures.
        inputs = most_recent(inputs, self.inputs.item.name, self.max_sequence_length - 1)
        scores = self.head.scores(inputs)
        return scores if self.top_k is None else torch.topk(scores, self.top_k)

    def save(self, path: Path | str, extra: dict[str, Any] | None = None) -> None:
        """Write ``model.json`` and ``model.safetensors`` into a folder.

        Parameters
        ----------
        path : Path or str
            The folder; made when it does not exist.
        extra : dict, optional
            More keys for ``model.json``.
        """
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        content = {**(extra or {}), "model": describe(self)}
        (path / DESCRIPTION).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, path / WEIGHTS)

    @classmethod
    def load(cls, path: Path | str) -> Model:
        """Read what `save` wrote. Nothing in the files is executed.

        Raises
        ------
        UserError
            When the folder holds no model, or its files do not fit each other.
        """
        path = Path(path)
        for name in (DESCRIPTION, WEIGHTS):
            if not (path / name).is_file():
                raise UserError(f"{path} holds no model (there is no {name}): run 'nextitem train' first")
        try:
            content = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
            model = restore(content["model"])
            if not isinstance(model, cls):
                raise TypeError("it describes no model")
            model.load_state_dict(load_file(path / WEIGHTS))
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{path / DESCRIPTION} cannot be loaded: {error}") from error
        return model.eval()
