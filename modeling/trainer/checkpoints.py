"""Checkpoints of a run: `modeling.checkpoint`'s model, and the state of optimiser, schedule, random numbers and data.

    checkpoint-200/  model.json  model.safetensors  optimizer.pt  scheduler.pt  rng_state.pth  trainer_state.json
                     training_args.json  data.json

The ``.pt`` and ``.pth`` files are read with torch's ``weights_only``: whatever would run code is refused.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model

from common.errors import UserError
from modeling.checkpoint import WEIGHTS, save
from modeling.model import Model

ARGUMENTS = "training_args.json"
DATA = "data.json"


def save_model(model: Model, folder: Path | str, args: Any) -> None:
    """Write the model and the arguments of the run."""
    save(model, folder)
    (Path(folder) / ARGUMENTS).write_text(args.to_json_string() + "\n", encoding="utf-8")


def load_weights(model: Model, folder: Path | str) -> None:
    """Put the weights of a checkpoint into a model.

    Raises
    ------
    UserError
        When there is no checkpoint, or it is of another model.
    """
    file = Path(folder) / WEIGHTS
    if not file.is_file():
        raise UserError(f"{folder} is no checkpoint: there is no {WEIGHTS}")
    try:
        load_model(model, file)
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder} holds the checkpoint of another model, or a broken one: {error}") from error


def save_data(identity: dict[str, Any], folder: Path | str) -> None:
    """Write what the order of the batches depends on."""
    (Path(folder) / DATA).write_text(json.dumps(identity) + "\n", encoding="utf-8")


def check_data(identity: dict[str, Any], folder: Path | str) -> None:
    """Refuse to go on with other batches than those the checkpoint was made with.

    Raises
    ------
    UserError
        When data, batch size, seed or number of processes are others.
    """
    file = Path(folder) / DATA
    if not file.is_file():
        return
    with refusing(folder):
        before = json.loads(file.read_text(encoding="utf-8"))
    other = [name for name in identity if before.get(name) != identity[name]]
    if other:
        what = {"offsets": "sessions", "parts": "files"}.get(other[0], other[0].replace("_", " "))
        raise UserError(
            f"{folder} cannot be resumed exactly: the training data has other {what} than when it was saved"
        )


@contextmanager
def refusing(folder: Path | str) -> Iterator[None]:
    """Say of files that cannot be read, or would run code, which checkpoint they are of."""
    try:
        yield
    except (pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"the checkpoint {folder} cannot be loaded: {reason}") from error
