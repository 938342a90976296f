"""The features of a data set: which columns a model may know of an event, and what is made of them.

::

    features:
      item:
        categorical: [department, {column: brand, min_count: 5, buckets: 100}, {column: url, hash: 10000}]
        continuous: [weight, {column: price, log: true}]
      time: [hour, weekday, age, since_previous]
      relative: [{column: price, to: department}]
      frequency: [sku, brand]
      joins: [{files: products.parquet, on: sku, columns: [department, brand, price]}]
      vectors: [{name: text, files: vectors.parquet, column: embedding}]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from common.settings import Settings

if TYPE_CHECKING:
    from preprocessing.settings import Dataset

TIME_FEATURES = {
    "hour": ("hour_sin", "hour_cos"),
    "weekday": ("weekday_sin", "weekday_cos"),
    "age": ("age",),
    "since_previous": ("since_previous",),
}
# Embedding tables of more rows than this are a mistake in a setting, not a wish.
_MOST_CODES = 100_000_000


def _named(value: Any) -> Any:
    """Entries that are only a column's name, as settings."""
    return [{"column": entry} if isinstance(entry, str) else entry for entry in value]


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Categorical(Settings):
    """A column of categories, and how they become codes."""

    column: str
    min_count: int = Field(0, ge=0, description="values that training shows less often count as unknown")
    buckets: int = Field(0, ge=0, le=_MOST_CODES, description="codes that rare and unknown values share, by their hash")
    hash: int = Field(0, ge=0, le=_MOST_CODES, description="no vocabulary: so many codes, by the hash of the value")

    @model_validator(mode="after")
    def _one_way(self) -> Categorical:
        if self.hash and (self.min_count or self.buckets):
            raise ValueError("'hash' keeps no vocabulary: give it without min_count and buckets")
        return self


class Continuous(Settings):
    """A number; ``log`` squeezes prices and counts before they are normalised."""

    column: str
    log: bool = False


class Columns(Settings):
    """Columns by kind."""

    categorical: Annotated[list[Categorical], BeforeValidator(_named)] = Field(default_factory=list)
    continuous: Annotated[list[Continuous], BeforeValidator(_named)] = Field(default_factory=list)

    def names(self) -> Iterator[str]:
        """Every column, categorical ones first."""
        yield from (entry.column for entry in self.categorical)
        yield from (entry.column for entry in self.continuous)


class Relative(Settings):
    """A number next to the training mean of its category."""

    column: str
    to: str = Field(description="the column of categories")
    log: bool = Field(True, description="the logarithm of the ratio, or else the difference")

    @property
    def name(self) -> str:
        """The feature's name."""
        return f"{self.column}_relative_to_{self.to}"


class _Keyed(Settings):
    @model_validator(mode="before")
    @classmethod
    def _on(cls, value: Any) -> Any:
        # YAML 1.1 reads a bare `on` as the truth value.
        return {"on" if key is True else key: part for key, part in value.items()} if isinstance(value, dict) else value


class Join(_Keyed):
    """Columns that a table adds to the events: of items, of users, of whatever column has the key."""

    files: Annotated[list[str], BeforeValidator(_several)] = Field(min_length=1)
    on: str = Field(description="the key: a column of the events and of the table")
    columns: list[str] = Field(min_length=1)


class Vectors(_Keyed):
    """Vectors of items that an encoder of texts or images made in advance."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    files: Annotated[list[str], BeforeValidator(_several)] = Field(min_length=1)
    on: str | None = Field(None, description="the table's column of item ids; by default named as in the events")
    column: str = Field(description="the table's column of vectors: lists of numbers, all of one length")
    unit_length: bool = Field(False, description="scale each to length 1, as some encoders' numbers go into hundreds")


class Features(Settings):
    """What a model may know of an event besides its item."""

    item: Columns = Columns()
    event: Columns = Columns()
    time: list[Literal["hour", "weekday", "age", "since_previous"]] = Field(default_factory=list)
    relative: list[Relative] = Field(default_factory=list)
    frequency: list[str] = Field(default_factory=list, description="columns whose values are counted in training")
    joins: list[Join] = Field(default_factory=list)
    vectors: list[Vectors] = Field(default_factory=list)

    def used(self) -> list[str]:
        """Every column that a feature is made of, from the events or from a table, each once."""
        made_of = [name for entry in self.relative for name in (entry.column, entry.to)]
        return list(dict.fromkeys([*self.item.names(), *self.event.names(), *made_of, *self.frequency]))

    def joined(self) -> dict[str, Join]:
        """The columns that come from tables, and from which: those that a feature is made of."""
        used = set(self.used())
        return {column: join for join in self.joins for column in join.columns if column in used}

    def raw_columns(self) -> list[str]:
        """The columns of the events that features are made of, the keys of tables among them."""
        joined = self.joined()
        keys = [join.on for join in self.joins if join in joined.values()]
        return list(dict.fromkeys([*(name for name in self.used() if name not in joined), *keys]))

    def numbers(self) -> set[str]:
        """The columns, of the events or of tables, that must hold numbers."""
        continuous = {entry.column for part in (self.item, self.event) for entry in part.continuous}
        return continuous | {entry.column for entry in self.relative}

    def made(self) -> list[str]:
        """Names of the features that do not have the name of their column."""
        times = [name for period in self.time for name in TIME_FEATURES[period]]
        counted = [frequency_name(column) for column in self.frequency]
        return [*times, *(entry.name for entry in self.relative), *counted, *(entry.name for entry in self.vectors)]


def frequency_name(column: str) -> str:
    """The name of the feature that counts a column's values."""
    return f"{column}_frequency"


def check_features(dataset: Dataset) -> None:
    """What can only be checked with the whole description.

    Raises
    ------
    ValueError
        When features contradict each other or the events: names the setting.
    """
    events, features = dataset.events, dataset.features
    keys = [events.key, events.item, events.time.column, *([events.order] if events.order else [])]
    joined = [(column, join) for join in features.joins for column in join.columns]
    names = [column for column, _ in joined]
    for column, join in joined:
        if names.count(column) > 1:
            raise ValueError(f"features.joins: the column '{column}' comes from two tables or twice from one")
        if column in keys or column == join.on:
            raise ValueError(f"features.joins: the events have the column '{column}' already")
        if join.on in names:
            raise ValueError(f"features.joins: the key '{join.on}' must be a column of the events, not of a table")
    # An order may have gaps filled in and times are parsed: neither is a category or a number of its own.
    for setting, columns in (
        ("joins.on", [join.on for join in features.joins]),
        ("relative", [name for entry in features.relative for name in (entry.column, entry.to)]),
        ("frequency", features.frequency),
    ):
        if events.time.column in columns:
            raise ValueError(f"features.{setting}: '{events.time.column}' is the time of the events")
    for entry in features.relative:
        if entry.column in (events.key, events.item) or entry.column == entry.to:
            raise ValueError(f"features.relative: '{entry.column}' must be a number that is no id and not its category")
    made = features.made()
    taken = {*dataset.columns(), *features.used(), *names}
    for name in made:
        if made.count(name) > 1 or name in taken:
            raise ValueError(f"features: two features or columns have the name '{name}': leave one out or rename it")
    for column in [*features.used(), *names, *(join.on for join in features.joins)]:
        if "/" in column or not column or column.startswith("_nextitem"):
            raise ValueError(f"the column name '{column}' cannot be used: rename it in its files")
