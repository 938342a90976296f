"""Models on disk: what they are as JSON, their weights as safetensors. Nothing in the files is executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common.errors import UserError
from modeling.serialization import describe, restore

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"

M = TypeVar("M", bound=nn.Module)


def save(model: nn.Module, path: Path | str, extra: dict[str, Any] | None = None) -> None:
    """Write a model into a folder.

    Parameters
    ----------
    model : Model
        All of its parts must be able to say how they were made; otherwise nothing is written.
    path : Path or str
        The folder; made when it does not exist.
    extra : dict, optional
        More keys for ``model.json``.
    """
    path = Path(path)
    content = {**(extra or {}), "model": describe(model)}
    path.mkdir(parents=True, exist_ok=True)
    (path / DESCRIPTION).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    save_file(_tensors(model), path / WEIGHTS)


def load(path: Path | str, kind: type[M]) -> M:
    """Read what `save` wrote, in evaluation mode.

    Parameters
    ----------
    path : Path or str
        The folder.
    kind : type
        What it must hold.

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
        if not isinstance(model, kind):
            raise TypeError("it describes no model")
        _put(model, load_file(path / WEIGHTS))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path / DESCRIPTION} cannot be loaded: {error}") from error
    return model.eval()


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state with each shared tensor once, under the first of its names."""
    names: dict[int, str] = {}
    found = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if names.setdefault(id(tensor), name) == name:
            found[name] = tensor.detach().cpu().contiguous()
    return found


def _put(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load such a state: a tensor that the model shares is there once."""
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if set(missing) - (set(model.state_dict()) - set(_tensors(model))) or unexpected:
        raise ValueError(f"the weights do not fit: {', '.join([*missing, *unexpected][:3])} ...")
