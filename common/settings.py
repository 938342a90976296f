"""Read a YAML file into a pydantic model, with errors that a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import UserError


class Settings(BaseModel):
    """Base of every settings class: immutable, and a key that does not exist is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The keys and values of a YAML file, as they stand there.

    Raises
    ------
    UserError
        When the file is missing, is not YAML, or holds something else.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys and values, such as 'name: my_shop'; see examples/")
    return content


def load_yaml(path: Path | str, kind: type[S], overrides: Mapping[str, Any] | None = None) -> S:
    """Read and validate a YAML file.

    Parameters
    ----------
    path : Path or str
        The file.
    kind : type
        The settings class that describes it.
    overrides : mapping, optional
        Values that replace those of the file, with dotted keys (``"sessions.max_length"``).

    Raises
    ------
    UserError
        When the file is missing, is not YAML, or a key or value is wrong: names the file and the key.
    """
    content = read_yaml(path)
    for key, value in (overrides or {}).items():
        branch = content
        *parents, leaf = key.split(".")
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    return validate(content, kind, str(path))


def validate(content: Mapping[str, Any], kind: type[S], source: str) -> S:
    """Validate a mapping against a settings class; `source` names it in errors."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {_explain(error, kind)}") from error


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or kind.__name__
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(kind, first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
        return f"there is no key '{where}': {hint}{more}"
    if first["type"] == "missing":
        return f"the key '{where}' is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    given = first.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) and len(str(given)) < 60 else ""
    return f"{where}: {message}{shown}{more}"


def _known_keys(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        field = kind.model_fields.get(str(part))
        nested = [t for t in _types(field.annotation if field else None) if isinstance(t, type)]
        models = [t for t in nested if issubclass(t, BaseModel)]
        if not models:
            return []
        kind = models[0]
    return sorted(kind.model_fields)


def _types(annotation: Any) -> list[Any]:
    arguments = getattr(annotation, "__args__", ())
    return [annotation, *(found for argument in arguments for found in _types(argument))]
