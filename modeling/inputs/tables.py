"""Embedding tables: their description, their first values, and what several codes of one value become."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modeling.inputs.initializers import PretrainedEmbeddingsInitializer
from modeling.serialization import part

COMBINERS = ("mean", "sum", "sqrtn")
_STD = 0.05


def key(name: str) -> str:
    """A column's name as a key of a ModuleDict: any name maps to a key of its own without dots or clashes."""
    return "f_" + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in name)


def inferred_width(cardinality: int, multiplier: float = 2.0) -> int:
    """``ceil(cardinality ** 0.25 * multiplier)``: the width of a table whose width nobody chose."""
    return math.ceil(cardinality**0.25 * multiplier)


def zero_rows(table: nn.Embedding, count: int) -> None:
    """Set the first rows of a table to zero: padding, and codes that training never shows."""
    with torch.no_grad():
        table.weight[:count].zero_()


class Normal:
    """Initialise with a normal distribution around 0."""

    def __init__(self, std: float) -> None:
        self.std = std

    def __call__(self, weight: Tensor) -> None:
        """Fill `weight` in place."""
        nn.init.normal_(weight, std=self.std)


@part
class TableConfig:
    """One embedding table.

    Parameters
    ----------
    vocabulary_size : int
        Rows.
    dim : int
        Width.
    initializer : callable, optional
        Fills the weight in place; N(0, 0.05) by default. Of a saved model only a `PretrainedEmbeddingsInitializer`
        is kept: the values themselves are among the weights.
    combiner : {"mean", "sum", "sqrtn"}
        What several codes of one value become: the mean of their vectors, the sum, or the sum divided by the root
        of their number. Padding does not count.
    name : str, optional
        Features whose tables have the same name share one.
    reserved : int
        Rows below it begin at zero: padding, null and unknown, which training does not show.

    Raises
    ------
    ValueError
        On sizes below 1 and unknown combiners.
    """

    def __init__(
        self,
        vocabulary_size: int,
        dim: int,
        initializer: Callable[[Tensor], Any] | None = None,
        combiner: str = "mean",
        name: str | None = None,
        reserved: int = 1,
    ) -> None:
        for what, size in (("vocabulary_size", vocabulary_size), ("dim", dim)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{what} of the table {name!r} must be a whole number of at least 1, not {size!r}")
        if combiner not in COMBINERS:
            raise ValueError(f"combiner must be one of {', '.join(COMBINERS)}, not {combiner!r}")
        if initializer is not None and not callable(initializer):
            raise ValueError(f"the initializer of the table {name!r} must be callable, not {initializer!r}")
        self.vocabulary_size, self.dim, self.combiner, self.name = vocabulary_size, dim, combiner, name
        self.initializer = initializer or Normal(_STD)
        self.reserved = reserved

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        keep = isinstance(self.initializer, PretrainedEmbeddingsInitializer)
        return {
            "vocabulary_size": self.vocabulary_size,
            "dim": self.dim,
            "initializer": self.initializer if keep else None,
            "combiner": self.combiner,
            "name": self.name,
            "reserved": self.reserved,
        }

    def make(self) -> nn.Embedding:
        """The table. Its first row is zero, and gets no gradient."""
        table = nn.Embedding(self.vocabulary_size, self.dim, padding_idx=0)
        pretrained = isinstance(self.initializer, PretrainedEmbeddingsInitializer)
        try:
            self.initializer(table.weight)
        except ValueError as error:
            raise ValueError(f"table {self.name!r}: {error}") from error
        # After the initialiser: what it wrote into these rows would be read as if it had been learnt.
        zero_rows(table, 1 if pretrained else min(self.reserved, self.vocabulary_size))
        return table


@part
class FeatureConfig:
    """One categorical feature: which table it looks up, and how.

    Parameters
    ----------
    table : TableConfig
        The table; two features may be given the same.
    max_sequence_length : int
        Kept for compatibility: widths of batches decide.
    name : str, optional
        A name for the table, where it has none.
    sequence : bool
        Whether the feature has a value an event. Only `SequenceEmbeddingFeatures` asks.
    """

    def __init__(
        self, table: TableConfig, max_sequence_length: int = 0, name: str | None = None, sequence: bool = True
    ) -> None:
        self.table, self.max_sequence_length, self.name, self.sequence = table, max_sequence_length, name, sequence

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "table": self.table,
            "max_sequence_length": self.max_sequence_length,
            "name": self.name,
            "sequence": self.sequence,
        }


def combine(codes: Tensor, vectors: Tensor, combiner: str) -> Tensor:
    """One vector for several codes.

    Parameters
    ----------
    codes : Tensor [..., M], int64
        0 is padding.
    vectors : Tensor [..., M, D]
        Their rows of the table.
    combiner : {"mean", "sum", "sqrtn"}
        See `TableConfig`.

    Returns
    -------
    Tensor [..., D]
        Zero where every code is padding.
    """
    real = codes != 0
    total = (vectors * real[..., None].to(vectors.dtype)).sum(-2)
    if combiner == "sum":
        return total
    count = real.sum(-1, keepdim=True).clamp(min=1).to(vectors.dtype)
    return total / (count if combiner == "mean" else count.sqrt())
