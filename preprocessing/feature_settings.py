"""The features of a data set: which columns a model may know of an event, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from common.settings import Settings

TIME_FEATURES = {"hour": ("hour_sin", "hour_cos"), "weekday": ("weekday_sin", "weekday_cos"), "age": ("age",)}


class Continuous(Settings):
    """A number; ``log`` squeezes prices and counts before they are normalised."""

    column: str
    log: bool = False


def _continuous(value: Any) -> Any:
    return [{"column": entry} if isinstance(entry, str) else entry for entry in value]


class Columns(Settings):
    """Columns by kind."""

    categorical: list[str] = Field(default_factory=list)
    continuous: Annotated[list[Continuous], BeforeValidator(_continuous)] = Field(default_factory=list)

    def names(self) -> Iterator[str]:
        """Every column, categorical ones first."""
        yield from self.categorical
        yield from (entry.column for entry in self.continuous)


class Features(Settings):
    """What a model may know of an event besides its item."""

    item: Columns = Columns()
    event: Columns = Columns()
    time: list[Literal["hour", "weekday", "age"]] = Field(default_factory=list)
