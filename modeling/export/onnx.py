"""The model as ONNX, for ONNX Runtime and what reads its format.

Needs the extra ``onnx`` (``pip install nextitem[onnx]``). The graph takes the columns by name and answers ``scores``
[B, C], or ``scores`` and ``ids`` [B, k].
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from modeling.export.torchscript import sample_inputs
from modeling.padding import to_width
from modeling.ranking import best, strike

# float32, and two programs that add in different orders.
_TOLERANCE = 1e-4


class _Graph(nn.Module):
    """Columns one by one, because ONNX knows no dictionaries."""

    def __init__(self, model: Any, names: list[str], exclude: str, top_k: int | None, width: int | None) -> None:
        super().__init__()
        self.model, self.names, self.exclude, self.top_k, self.width = model, names, exclude, top_k, width

    def forward(self, *columns: Tensor) -> Any:
        inputs = dict(zip(self.names, columns, strict=True))
        items = inputs[self.model.inputs.item.name]
        if self.width is not None:
            inputs = {
                f.name: to_width(inputs[f.name], self.width) if f.sequence else inputs[f.name]
                for f in self.model.features
            }
        scores = strike(self.model.scores(inputs), items, self.exclude)
        return scores if self.top_k is None else best(scores, self.top_k)


def export_onnx(model: Any, path: Path | str, exclude: str = "none", top_k: int | None = None) -> Path:
    """Write a model as ONNX and check in ONNX Runtime that it answers as the model does.

    Parameters
    ----------
    model : Model
        Predicts the next item.
    path : Path or str
        The file, ending in ``.onnx``.
    exclude : {"none", "last", "seen"}
        Items of the session that are not recommended.
    top_k : int, optional
        Answer with the best items instead of all scores.

    Returns
    -------
    Path
        The file. Its inputs are the model's columns: any number of sessions, of 1 to ``max_sequence_length - 1``
        events; keep the most recent ones.

    Raises
    ------
    UserError
        When the extra is not installed, or the architecture cannot be written as ONNX: with the reason.
    """
    if not all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        raise UserError("ONNX needs the extra 'onnx': uv pip install 'nextitem[onnx]'")
    path = Path(path)
    device, was_training = next(model.parameters()).device, model.training
    model.cpu().eval()
    reasons = []
    try:
        # Some backbones make their lengths constant when traced; with one length for all that is no fault.
        for width in (None, model.max_sequence_length - 1):
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                draft = Path(folder) / path.name
                try:
                    _write(model, draft, exclude, top_k, width)
                    _check(model, draft, exclude, top_k)
                except Exception as error:  # the exporter and ONNX Runtime raise what they like
                    reasons.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
                    continue
                os.replace(draft, path)
                return path
    finally:
        model.to(device).train(was_training)
    raise UserError(f"this model cannot be written as ONNX: {reasons[-1]}")


def _write(model: Any, path: Path, exclude: str, top_k: int | None, width: int | None) -> None:
    example = sample_inputs(model, 3, min(4, model.max_sequence_length - 1))
    features = {feature.name: feature for feature in model.features}
    dynamic = torch.export.Dim.DYNAMIC
    shapes = tuple({0: dynamic, 1: dynamic} if features[name].sequence else {0: dynamic} for name in example)
    graph = _Graph(model, list(example), exclude, top_k, width).eval()
    outputs = ["scores"] if top_k is None else ["scores", "ids"]
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            graph,
            tuple(example.values()),
            str(path),
            dynamo=True,
            external_data=False,
            input_names=list(example),
            output_names=outputs,
            dynamic_shapes=(shapes,),
            verbose=False,
        )


def _check(model: Any, path: Path, exclude: str, top_k: int | None) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    limit = model.max_sequence_length - 1
    for seed, (batch, length) in enumerate([(1, 1), (1, limit), (5, limit), (2, max(1, limit // 2))]):
        inputs = sample_inputs(model, batch, length, seed)
        given = torch.from_numpy(session.run(["scores"], {name: c.numpy() for name, c in inputs.items()})[0])
        with torch.no_grad():
            scores = strike(model.scores(inputs), inputs[model.inputs.item.name], exclude)
            wanted = scores if top_k is None else best(scores, top_k)[0]
        if not torch.allclose(given, wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise RuntimeError(f"its scores differ from the model's for {batch} sessions of up to {length} events")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not there."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
