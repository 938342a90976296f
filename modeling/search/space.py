"""Which settings a search may change, and in which ranges: the ``search:`` section of a data set's YAML.

::

    search:
      learning_rate: {low: 0.0003, high: 0.01, log: true}
      dropout: {low: 0.0, high: 0.5}
      d_model: [32, 64, 128]
      architecture: [gpt2, sasrec, xlnet]
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from common.errors import UserError
from common.settings import Settings, validate
from modeling.settings import ModelSettings

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# A search may not win by changing what is measured, nor by being lucky with a seed.
_FIXED = {
    "seed": "that is luck; train with several seeds instead",
    "exclude": "it changes what is measured",
    "top_k": "it does not change the ranking",
    "device": "it does not change the ranking",
    "threads": "it does not change the ranking",
    "max_minutes": "it makes a figure depend on speed",
}


def _multiple(distance: float, step: float) -> bool:
    return abs(distance / step - round(distance / step)) < 1e-9


class Range(Settings):
    """Numbers from `low` to `high`, both possible."""

    low: float
    high: float
    log: bool = Field(False, description="even on a logarithmic scale: for learning rates and the like")
    step: float | None = Field(None, gt=0, description="only multiples of it above low")

    @model_validator(mode="after")
    def _ascending(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError("low must be above 0 on a logarithmic scale")
        if self.log and self.step:
            raise ValueError("log and step do not go together")
        if self.step and not _multiple(self.high - self.low, self.step):
            raise ValueError(f"steps of {self.step:g} do not lead from {self.low:g} to {self.high:g}")
        return self


Choice = bool | int | float | str | None
Dimension = Range | tuple[Choice, ...]


def _space(given: Any) -> Any:
    """Check the section; every error names the setting."""
    if not isinstance(given, Mapping) or not given:
        raise ValueError("write settings and their ranges, such as 'dropout: {low: 0.0, high: 0.5}'")
    return {name: _dimension(str(name), value) for name, value in given.items()}


def _dimension(name: str, given: Any) -> Dimension:
    known = set(ModelSettings.model_fields) - set(_FIXED)
    if name in _FIXED:
        raise ValueError(f"{name} cannot be searched: {_FIXED[name]}")
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known settings: {', '.join(sorted(known))}"
        raise ValueError(f"there is no setting '{name}': {hint}")
    if isinstance(given, Range) or (isinstance(given, tuple) and given):
        return given
    if isinstance(given, list) and given:
        for value in given:
            _fits(name, value)
        if len({str(value) for value in given}) < len(given):
            raise ValueError(f"{name}: a choice is there twice")
        return tuple(given)
    if not isinstance(given, Mapping):
        raise ValueError(f"{name}: write choices as [a, b], or a range as {{low: 1, high: 2}}")
    if _number(name) is None:
        raise ValueError(f"{name} is no number: write choices as [a, b]")
    try:
        found = validate(given, Range, name)
    except UserError as error:
        raise ValueError(str(error)) from None
    ends = {"low": found.low, "high": found.high, **({"step": found.step} if found.step else {})}
    for end, value in ends.items():
        if _number(name) is int and not value.is_integer():
            raise ValueError(f"{name}.{end}: must be a whole number, not {value:g}")
    _fits(name, found.low)
    _fits(name, found.high)
    return found


def _fits(name: str, value: Any) -> None:
    """Whether a setting may have a value, as far as the setting alone says it."""
    if isinstance(value, list | Mapping):
        raise ValueError(f"{name}: {value!r} is not one value")
    try:
        ModelSettings.model_validate({name: value})
    except ValidationError as error:
        # Errors elsewhere are of how settings fit together, which each trial decides.
        own = [found["msg"].removeprefix("Value error, ") for found in error.errors() if found["loc"][:1] == (name,)]
        if own:
            raise ValueError(f"{name}: {own[0]}, not {value!r}") from None


def _number(name: str) -> type | None:
    """``int`` or ``float`` for settings that are such numbers."""
    annotation = ModelSettings.model_fields[name].annotation
    kinds = {annotation, *getattr(annotation, "__args__", ())} - {type(None)}
    for kind in (int, float):
        if kinds == {kind}:
            return kind
    return None


Space = Annotated[dict[str, Dimension], BeforeValidator(_space)]

# What matters most in small transformers, in few dimensions: twenty trials are not many.
DEFAULT: dict[str, Dimension] = {
    "learning_rate": Range(low=0.0003, high=0.01, log=True),
    "dropout": Range(low=0.0, high=0.5),
    "d_model": (32, 64, 128),
    "n_layer": (1, 2, 3),
    "batch_size": (64, 128, 256),
}


def distributions_of(space: Mapping[str, Dimension]) -> dict[str, BaseDistribution]:
    """The space as Optuna has it."""
    # Optuna takes a moment to import, which only a search pays.
    from optuna import distributions

    found: dict[str, BaseDistribution] = {}
    for name, one in space.items():
        if not isinstance(one, Range):
            found[name] = distributions.CategoricalDistribution(one)
        elif _number(name) is int:
            step = int(one.step or 1)
            found[name] = distributions.IntDistribution(int(one.low), int(one.high), one.log, step)
        else:
            found[name] = distributions.FloatDistribution(one.low, one.high, one.log, one.step)
    return found


def inside(space: Mapping[str, Dimension], settings: ModelSettings) -> dict[str, Any]:
    """The values of settings that the space has, too."""
    found = {}
    for name, one in space.items():
        value = getattr(settings, name)
        if isinstance(one, Range):
            known = value is not None and one.low <= value <= one.high
            # Numbers between two steps are not in the space.
            known = known and (not one.step or _multiple(value - one.low, one.step))
        else:
            known = value in one
        if known:
            found[name] = value
    return found
