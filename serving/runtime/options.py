"""What a client may ask for besides its events, and how much a request may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.kernels import RESERVED
from serving.runtime.columns import RequestError
from serving.runtime.vocabulary import Vocabulary

# Optional inputs of the model; a column of events cannot have one of these names.
TOP_K, EXCLUDE_SEEN, EXCLUDED, CANDIDATES = OPTIONS = ("top_k", "exclude_seen", "excluded", "candidates")
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Limits:
    """How much one request may hold; more is refused with a reason.

    Attributes
    ----------
    events, sessions : int
        Events, and different sessions.
    id_bytes : int
        Bytes of one text value.
    top_k : int
        Recommendations a session.
    listed : int
        Items in `excluded`, and in `candidates`.
    """

    events: int = 50_000
    sessions: int = 5_000
    id_bytes: int = 1_024
    top_k: int = 20
    listed: int = 10_000

    def to_dict(self) -> dict[str, int]:
        """As plain numbers."""
        return asdict(self)


@dataclass(frozen=True)
class Options:
    """What one request asks for.

    Attributes
    ----------
    top_k : int
        Recommendations a session.
    exclude_seen : bool
        Leave out the items of the session itself.
    excluded, candidates : int64 [M], optional
        Codes of items: these are left out, or only these are ranked. Without doubles, reserved codes and unknown items.
    """

    top_k: int
    exclude_seen: bool = False
    excluded: Codes | None = None
    candidates: Codes | None = None


def read_options(raw: Mapping[str, NDArray[Any]], items: Vocabulary, limits: Limits) -> Options:
    """Check the options of a request.

    Parameters
    ----------
    raw : mapping of str to array
        Those of `OPTIONS` that were sent, as Triton delivers them.
    items : Vocabulary
        Of the item.
    limits : Limits
        What may be asked for.

    Raises
    ------
    RequestError
        When a value is out of range, or there are too many.
    """
    top_k = _one(raw, TOP_K, limits.top_k)
    if not 1 <= top_k <= limits.top_k:
        raise RequestError(f"'{TOP_K}' is {top_k}: ask for 1 to {limits.top_k} items")
    return Options(
        top_k,
        bool(_one(raw, EXCLUDE_SEEN, 0)),
        _listed(raw, EXCLUDED, items, limits),
        _listed(raw, CANDIDATES, items, limits),
    )


def _one(raw: Mapping[str, NDArray[Any]], name: str, default: int) -> int:
    if name not in raw:
        return default
    if raw[name].size != 1:
        raise RequestError(f"'{name}' has {raw[name].size} values: send one")
    return int(raw[name].reshape(-1)[0])


def _listed(raw: Mapping[str, NDArray[Any]], name: str, items: Vocabulary, limits: Limits) -> Codes | None:
    if name not in raw:
        return None
    values = raw[name].reshape(-1)
    if len(values) > limits.listed:
        raise RequestError(f"'{name}' has {len(values)} items: send at most {limits.listed}")
    codes = np.unique(items.encode(values))
    return codes[codes >= RESERVED + items.buckets]
