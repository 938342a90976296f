"""Vocabularies: original values <-> encoded ids, as hash look-ups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.feature_kernels import hash_codes
from preprocessing.kernels import NULL, RESERVED, UNKNOWN

Array = NDArray[Any]


class Vocabulary:
    """The known values of one categorical column, in the order of their codes.

    Code 1 is a missing value, 2 an unknown one, and ``values[i]`` has code ``i + 3``. With `buckets`, unknown values
    have codes 3 to ``buckets + 2`` by their hash, and known ones follow.

    Parameters
    ----------
    values : sequence
        Whole numbers, fractions, or text as bytes.
    buckets : int
        Codes for unknown values; 0 for the one.
    """

    def __init__(self, values: Sequence[Any], buckets: int = 0) -> None:
        self.buckets, first = buckets, RESERVED + buckets
        self._codes = {value: code for code, value in enumerate(values, start=first)}
        kind = object if values and isinstance(values[0], bytes) else None
        # What the codes before the first decode to is never seen by a client: they are never recommended.
        filler = b"" if kind is object else 0
        self._values = np.array([filler] * first + list(values), dtype=kind)

    def __len__(self) -> int:
        return len(self._codes)

    def encode(self, values: Array) -> NDArray[np.int64]:
        """Encode a column: int64 [N]. NaN and empty text are missing values."""
        get = self._codes.get
        if values.dtype.kind == "f":
            # NaN is the one number that differs from itself.
            found = (NULL if value != value else get(value, UNKNOWN) for value in values.tolist())
        elif values.dtype == object:
            found = (get(value, UNKNOWN) if value else NULL for value in values.tolist())
        else:
            found = (get(value, UNKNOWN) for value in values.tolist())
        codes = np.fromiter(found, np.int64, len(values))
        if self.buckets:
            unknown = codes == UNKNOWN
            codes[unknown] = hash_codes(values[unknown], self.buckets)
        return codes

    def decode(self, codes: NDArray[np.int64]) -> Array:
        """Original values of codes of any shape."""
        return self._values[codes]

    def to_arrays(self, name: str) -> dict[str, Array]:
        """The vocabulary as plain arrays, for a file that needs no pickle."""
        values = self._values[RESERVED + self.buckets :]
        kept = pack_text(name, values.tolist()) if values.dtype == object else {f"{name}/numbers": values}
        return kept | {f"{name}/buckets": np.array(self.buckets)}

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, Array]) -> Vocabulary:
        """The inverse of `to_arrays`."""
        numbers = arrays.get(f"{name}/numbers")
        values = unpack_text(name, arrays) if numbers is None else numbers.tolist()
        return cls(values, int(arrays.get(f"{name}/buckets", 0)))


def pack_text(name: str, values: Sequence[bytes]) -> dict[str, Array]:
    """Text as two plain arrays: its bytes one behind the other, and the length of each."""
    lengths = np.array([len(value) for value in values], dtype=np.int64)
    return {f"{name}/text": np.frombuffer(b"".join(values), dtype=np.uint8), f"{name}/lengths": lengths}


def unpack_text(name: str, arrays: Mapping[str, Array]) -> list[bytes]:
    """The inverse of `pack_text`."""
    text = arrays[f"{name}/text"].tobytes()
    ends = np.cumsum(arrays[f"{name}/lengths"]).tolist()
    return [text[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []


def pack_column(name: str, values: Sequence[Any]) -> dict[str, Array]:
    """A column of a joined table as plain arrays that are indexed by the key's code.

    Parameters
    ----------
    name : str
        Its name in the file.
    values : sequence
        Of the known keys in the order of their codes: numbers with NaN, or text as bytes, empty where it is missing.
        Reserved codes have nothing, as keys that the table does not have.
    """
    if not values or not isinstance(values[0], bytes):
        return {name: np.array([np.nan] * RESERVED + list(values), dtype=np.float64)}
    # Tables of items repeat their texts: each is stored once.
    distinct: dict[bytes, int] = {b"": 0}
    places = [0] * RESERVED + [distinct.setdefault(value, len(distinct)) for value in values]
    return pack_text(name, list(distinct)) | {f"{name}/places": np.array(places, dtype=np.int32)}


def unpack_column(name: str, arrays: Mapping[str, Array]) -> Array:
    """The inverse of `pack_column`: float64, or bytes as objects. Other arrays come back as they are."""
    if f"{name}/places" not in arrays:
        return arrays[name]
    return np.array(unpack_text(name, arrays), dtype=object)[arrays[f"{name}/places"]]
