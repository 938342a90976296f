"""Recipes for training, as settings in small YAML files beside this one; the accuracy table chose them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import UserError
from common.settings import read_yaml

_FOLDER = Path(__file__).parent
PRESETS = tuple(sorted(file.stem for file in _FOLDER.glob("*.yaml")))


def read_preset(name: str) -> dict[str, Any]:
    """The settings that a preset chooses, by the names of `modeling.settings.ModelSettings`.

    Raises
    ------
    UserError
        When there is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"--preset {name} is not known: choose {' or '.join(PRESETS)}")
    return read_yaml(_FOLDER / f"{name}.yaml")
