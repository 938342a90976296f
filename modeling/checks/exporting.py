"""The exported model answers as the model does, and so does the saved one."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import torch

from modeling.backbones.precision import double
from modeling.checks.invariants import LIMIT_OF_ROUNDING
from modeling.checks.result import Failed, Result, at_most
from modeling.checks.sessions import batch_of, difference, scores
from modeling.export.torchscript import export_torchscript, recommender
from modeling.model import Model


def exports(model: Any) -> Result:
    """TorchScript equals eager at other batch sizes and lengths; saved and loaded equals saved.

    The model has double precision, with weights that fit single precision, and both computations are in double
    precision: so the limit is that of the invariants. Sessions of one event alone, of full length, and longer than the
    limit are among those compared.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with double():
            worst = _traced(model, path / "model.pt")
        if worst > LIMIT_OF_ROUNDING:
            return at_most("exports", worst, LIMIT_OF_ROUNDING, "TorchScript answers otherwise at other shapes")
        try:
            model.save(path / "model")
            # In single precision, as users load: tables that are computed, not saved, must be rounded alike.
            loaded = Model.load(path / "model").double()
        except Exception as error:
            raise Failed(f"saving: {_line(error)}") from error
    batch = batch_of(model.inputs.features, [model.max_sequence_length - 1, 1, 3])
    with double():
        worst = max(worst, difference(scores(model, batch), scores(loaded, batch)))
    detail = "" if worst <= LIMIT_OF_ROUNDING else "the loaded model differs from the saved one"
    return at_most("exports", worst, LIMIT_OF_ROUNDING, detail)


def _traced(model: Any, path: Path) -> float:
    limit, features = model.max_sequence_length, model.inputs.features
    try:
        export_torchscript(model, path)
        exported = torch.jit.load(str(path))
    except Exception as error:  # the tracer raises what it likes
        raise Failed(f"TorchScript: {_line(error)}") from error
    eager = recommender(model, "none")
    everything = model.inputs.item.cardinality - model.inputs.item.reserved
    batches = [[1], [limit - 1], [limit + 3, limit // 2], [3, 1], [limit - 1, 2, 5, limit, limit, 1, 3], [2] * 17]
    worst = 0.0
    for seed, lengths in enumerate(batches):
        columns = batch_of(features, lengths, seed=seed)
        with torch.no_grad():
            given, ids = exported(columns, everything)
            wanted, expected = eager(columns, everything)
        # By item: equal scores may come in either order.
        given, wanted = given.gather(1, ids.argsort(1)), wanted.gather(1, expected.argsort(1))
        if not torch.isfinite(given).all() or not torch.equal(ids.sort(1).values, expected.sort(1).values):
            raise Failed(f"TorchScript recommends other items for sessions of {lengths} events")
        worst = max(worst, difference(wanted, given))
    return worst


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The tracer adds its stack, a line a call: "file.py(7): name".
    said = [line for line in lines if not re.match(r"\S+\(\d+\): ", line) and line != "RuntimeError:"] or [""]
    return f"{type(error).__name__}: {said[0]}"[:300]
