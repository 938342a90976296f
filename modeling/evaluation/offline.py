"""A model's folder, and what it recommends offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from modeling.checkpoint import DESCRIPTION
from modeling.model import Model


def describe_model(model: Path | str) -> dict[str, Any]:
    """The content of a model folder's ``model.json``.

    Raises
    ------
    UserError
        When it is missing or unreadable.
    """
    path = Path(model) / DESCRIPTION
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: run 'nextitem train' first") from error
    return content


def recommend(
    model: Path | str | Model, inputs: dict[str, Tensor], k: int = 20, exclude: str | None = None
) -> tuple[Tensor, Tensor]:
    """Best items for padded sessions, offline: what a server must answer too.

    Parameters
    ----------
    model : Path, str or Model
        A model, or its folder.
    inputs : dict of Tensor [B, L]
        Encoded columns, right-padded with 0.
    k : int
        How many.
    exclude : {"none", "last", "seen"}, optional
        By default what the model's folder says, "none" for a `Model`.

    Returns
    -------
    tuple of Tensor [B, k]
        Scores float32 and item ids int64, best first.
    """
    from modeling.export.torchscript import recommender

    if not isinstance(model, Model):
        exclude = exclude or str(describe_model(model).get("exclude", "none"))
        model = Model.load(model)
    with torch.inference_mode():
        result: tuple[Tensor, Tensor] = recommender(model.eval(), exclude or "none")(inputs, k)
    return result
