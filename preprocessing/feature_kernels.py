"""The arithmetic of hashed, relative, counted and timed features, in numpy alone.

Like `preprocessing.kernels`, it is called by the NVTabular operators (offline) and by the request-time program, so
that training and serving cannot drift apart.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing import kernels
from preprocessing.kernels import NULL, RESERVED

Int = NDArray[np.int64]
Array = NDArray[Any]

_TEXT_BYTES = 8
# Whole numbers up to here are exact in double precision; 2 ** 63 itself is no int64.
_INT64_END = 2.0**63


def stable_hash(values: Array) -> NDArray[np.uint64]:
    """A 64-bit hash of each value: the same in every process, on every machine, in every version of Python.

    Parameters
    ----------
    values : array [N]
        Whole numbers, booleans, fractions, or text (``str`` or UTF-8 ``bytes``, as objects or of a fixed width). The
        same text as ``str`` and as ``bytes`` has the same hash; so have a whole number and the equal fraction. A text
        and the number that it reads as have not. Missing values (None, NaN) have some hash: see `hash_codes`.

    Returns
    -------
    uint64 [N]
        Evenly spread, but no secret: who chooses the values can make them collide.
    """
    values = np.asarray(values)
    if values.dtype.kind in "OUS":
        return np.fromiter(map(_hash_text, values.tolist()), np.uint64, len(values))
    if values.dtype.kind == "f":
        return _hash_bits(_bits(values.astype(np.float64)))
    return _hash_bits(values.astype(np.int64).view(np.uint64))


def hash_codes(values: Array, buckets: int) -> Int:
    """Codes of values without a vocabulary.

    Parameters
    ----------
    values : array [N]
        As in `stable_hash`. None, NaN and empty text are missing.
    buckets : int
        How many codes there are for values.

    Returns
    -------
    int64 [N]
        1 for missing values, ``3`` to ``buckets + 2`` for others.
    """
    values = np.asarray(values)
    codes = RESERVED + (stable_hash(values) % np.uint64(buckets)).astype(np.int64)
    if values.dtype.kind == "f":
        return np.where(np.isnan(values), NULL, codes)
    if values.dtype.kind in "OUS":
        return np.where(np.fromiter((not value for value in values.tolist()), bool, len(values)), NULL, codes)
    return codes


def _hash_text(value: str | bytes | None) -> int:
    encoded = value.encode() if isinstance(value, str) else value or b""
    return int.from_bytes(blake2b(encoded, digest_size=_TEXT_BYTES).digest(), "little")


def _bits(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Whole numbers as the int64 they are, others by their bits."""
    whole = (values == np.floor(values)) & (np.abs(values) < _INT64_END)
    bits = values.view(np.uint64).copy()
    bits[whole] = values[whole].astype(np.int64).view(np.uint64)
    return bits


def _hash_bits(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014), a bijection, after one step of its counter."""
    mixed = bits + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def since_previous(
    key: Int,
    item: Int,
    time: Int,
    order: Array | None = None,
    gap: int | None = None,
    collapse_repeats: bool = False,
    left_out: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """The logarithm of 1 + the seconds between an event and the one before it in its session.

    The previous event is the one that the session shows before it: a repeat that is collapsed is neither an event nor a
    previous one, so the time counts from the first of the repeats.

    Parameters
    ----------
    key, item, time, order, gap, collapse_repeats
        As in `kernels.group`.
    left_out : bool [N], optional
        Events that no session shows.

    Returns
    -------
    float64 [N]
        NaN for the first event of a session, and for events that no session shows.
    """
    logarithm = np.full(len(time), np.nan)
    kept = None if left_out is None else np.flatnonzero(~left_out)
    if kept is not None:
        key, item, time = key[kept], item[kept], time[kept]
        order = None if order is None else order[kept]
    grouped = kernels.group(key, item, time, order, gap=gap, collapse_repeats=collapse_repeats)
    if not len(grouped.rows):
        return logarithm
    ordered = time[grouped.rows]
    seconds = np.full(len(ordered), np.nan)
    seconds[1:] = (ordered[1:] - ordered[:-1]) / kernels.UNITS["s"]
    seconds[grouped.offsets[:-1]] = np.nan
    logarithm[grouped.rows if kept is None else kept[grouped.rows]] = np.log1p(seconds)
    return logarithm


def left_out(key: Int, item: Int) -> NDArray[np.bool_]:
    """Events of unknown items, but for those of sessions that hold nothing else.

    Parameters
    ----------
    key : int64 [N]
        Code of the session, from 0.
    item : int64 [N]
        Encoded item.

    Returns
    -------
    bool [N]
    """
    unknown = item == kernels.UNKNOWN
    known = np.zeros(int(key.max(initial=0)) + 1, dtype=bool)
    known[key[~unknown]] = True
    return np.asarray(unknown & known[key])


def relative(values: Array, code: Int, means: NDArray[np.float64], log: bool) -> NDArray[np.float64]:
    """A number next to the mean of its category.

    Parameters
    ----------
    values : array [N]
        The numbers; NaN is missing.
    code : int64 [N]
        The encoded category of each.
    means : float64 [cardinality]
        The training mean of each category; reserved codes, and what lies beyond the end, have the mean of all.
    log : bool
        The logarithm of the ratio, which only positive numbers have, or else the difference.

    Returns
    -------
    float64 [N]
        NaN where the value is missing, and with `log` where value or mean is not positive.
    """
    mean = at_code(code, means)
    values = values.astype(np.float64)
    if not log:
        return np.asarray(values - mean)
    result = np.full(len(values), np.nan)
    usable = (values > 0) & (mean > 0)
    result[usable] = np.log(values[usable]) - np.log(mean[usable])
    return result


def frequency(code: Int, counts: Int) -> NDArray[np.float64]:
    """The logarithm of 1 + how often training showed a value.

    Parameters
    ----------
    code : int64 [N]
        The encoded value.
    counts : int64 [cardinality]
        Training events of each code.

    Returns
    -------
    float64 [N]
        0 for values that training did not show, NaN for missing ones.
    """
    known = np.where((code >= RESERVED) & (code < len(counts)), code, 0)
    return np.where(code == NULL, np.nan, np.log1p(np.where(known > 0, counts[known], 0).astype(np.float64)))


def at_code(code: Int, table: Array) -> Array:
    """``table[code]``; a code beyond the end of the table gets what code 0 has."""
    return np.asarray(table[np.where(code < len(table), code, 0)])
