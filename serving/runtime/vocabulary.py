"""Vocabularies: original values <-> encoded ids, as hash look-ups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.kernels import NULL, RESERVED, UNKNOWN

Array = NDArray[Any]


class Vocabulary:
    """The known values of one categorical column, in the order of their codes.

    Code 1 is a missing value, 2 an unknown one, and ``values[i]`` has code ``i + 3``.

    Parameters
    ----------
    values : sequence
        Whole numbers, fractions, or text as bytes.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self._codes = {value: code for code, value in enumerate(values, start=RESERVED)}
        kind = object if values and isinstance(values[0], bytes) else None
        # What the reserved codes decode to is never seen by a client: they are never recommended.
        filler = b"" if kind is object else 0
        self._values = np.array([filler] * RESERVED + list(values), dtype=kind)

    def __len__(self) -> int:
        return len(self._codes)

    def encode(self, values: Array) -> NDArray[np.int64]:
        """Encode a column: int64 [N]. NaN and empty text are missing values."""
        get = self._codes.get
        if values.dtype.kind == "f":
            # NaN is the one number that differs from itself.
            codes = (NULL if value != value else get(value, UNKNOWN) for value in values.tolist())
        elif values.dtype == object:
            codes = (get(value, UNKNOWN) if value else NULL for value in values.tolist())
        else:
            codes = (get(value, UNKNOWN) for value in values.tolist())
        return np.fromiter(codes, np.int64, len(values))

    def decode(self, codes: NDArray[np.int64]) -> Array:
        """Original values of codes of any shape."""
        return self._values[codes]

    def to_arrays(self, name: str) -> dict[str, Array]:
        """The vocabulary as plain arrays, for a file that needs no pickle."""
        values = self._values[RESERVED:]
        if values.dtype != object:
            return {f"{name}/numbers": values}
        lengths = np.array([len(value) for value in values], dtype=np.int64)
        text = np.frombuffer(b"".join(values.tolist()), dtype=np.uint8)
        return {f"{name}/text": text, f"{name}/lengths": lengths}

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, Array]) -> Vocabulary:
        """The inverse of `to_arrays`."""
        if f"{name}/numbers" in arrays:
            return cls(arrays[f"{name}/numbers"].tolist())
        text = arrays[f"{name}/text"].tobytes()
        ends = np.cumsum(arrays[f"{name}/lengths"]).tolist()
        return cls([text[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else [])
