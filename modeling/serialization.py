"""Models as data: every part says from which arguments it was made, and is made again from them.

`describe` turns a part into JSON, `restore` turns it back. Only classes registered here are ever built, so a
saved model cannot run code of its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, TypeVar

from common.errors import UserError

_PARTS: dict[str, type] = {}
# Where parts are defined; each is imported before anything is restored.
_HOMES = (
    "masking.registry",
    "inputs.features",
    "inputs.fusion",
    "blocks.mlp",
    "blocks.sequential",
    "backbones.block",
    "tasks.classification",
    "tasks.next_item",
    "tasks.regression",
    "tasks.head",
    "evidence.module",
    "model",
)

T = TypeVar("T", bound=type)


def part(cls: T) -> T:
    """Class decorator: instances can be saved. They need ``config() -> dict`` with the constructor's arguments."""
    _PARTS[cls.__name__] = cls
    return cls


def describe(value: Any) -> Any:
    """A part as ``{"part": class, "args": {...}}``, nested parts and lists included; other JSON as it is."""
    if type(value) in _PARTS.values():
        return {"part": type(value).__name__, "args": {k: describe(v) for k, v in value.config().items()}}
    if isinstance(value, list | tuple):
        return [describe(element) for element in value]
    if isinstance(value, dict):
        return {str(key): describe(element) for key, element in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"a {type(value).__name__} cannot be saved: only parts of this library and plain values can")


def restore(content: Any) -> Any:
    """Build what `describe` described.

    Raises
    ------
    UserError
        When it names a part that this library does not have.
    """
    if isinstance(content, list):
        return [restore(element) for element in content]
    if not isinstance(content, dict):
        return content
    if set(content) != {"part", "args"}:
        return {key: restore(value) for key, value in content.items()}
    for home in _HOMES:
        import_module(f"modeling.{home}")
    cls = _PARTS.get(content["part"])
    if cls is None:
        raise UserError(f"the saved model has a part {content['part']!r} that this version does not know")
    arguments = {key: restore(value) for key, value in content["args"].items()}
    build = getattr(cls, "from_config", cls)
    return build(**arguments)
