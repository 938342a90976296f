"""Made-up data in the shape of real data, to try a model on: ``tr.data.tabular_sequence_testing_data``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from modeling.schema import Feature, features_of, target_names

_LONGEST = 20
_CODES_A_VALUE = 4


def random_columns(features: Sequence[Feature], lengths: Sequence[int] | Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Random columns for any features: codes within their domains, normal numbers and vectors.

    Parameters
    ----------
    features : sequence of Feature
        The columns.
    lengths : sequence of int [B]
        Events of each session.
    seed : int
        Same seed, same columns.

    Returns
    -------
    dict of Tensor
        [B, L] or [B, L, width] for features of events, right-padded with 0; [B] or [B, width] for those of sessions.
    """
    generator = torch.Generator().manual_seed(seed)
    n = torch.as_tensor(lengths)
    width = int(n.max()) if len(n) else 0
    padding = torch.arange(width) >= n[:, None]
    columns = {}
    for feature in features:
        shape = [len(n), *([width] if feature.sequence else []), *([feature.width] if feature.width else [])]
        if feature.kind == "categorical":
            low = min(feature.reserved, feature.cardinality - 1)
            column = torch.randint(low, feature.cardinality, shape, generator=generator)
        else:
            column = torch.randn(shape, generator=generator)
        hide = padding[..., None] if feature.width else padding
        columns[feature.name] = column.masked_fill(hide, 0) if feature.sequence else column
    return columns


class SyntheticData:
    """A schema, and random data that fits it.

    Parameters
    ----------
    schema : Schema
        Columns tagged categorical, continuous, embedding, and targets.
    """

    def __init__(self, schema: Any) -> None:
        self.schema = schema

    def torch_synthetic_data(
        self,
        num_rows: int = 100,
        min_session_length: int = 5,
        max_session_length: int = _LONGEST,
        device: str | torch.device | None = None,
        seed: int = 0,
    ) -> dict[str, Tensor]:
        """A batch.

        Parameters
        ----------
        num_rows : int
            Rows: sessions, where the item id is a list.
        min_session_length, max_session_length : int
            Every session has at least and at most so many events, drawn evenly.
        device : str or torch.device, optional
            Where to put it.
        seed : int
            Same seed, same batch.

        Returns
        -------
        dict of Tensor
            Padded columns as models take them, targets among them: int64 0 or 1 (or a class) or float32, [num_rows].

        Raises
        ------
        ValueError
            When the lengths contradict each other.
        """
        if not 1 <= min_session_length <= max_session_length:
            raise ValueError(
                f"min_session_length must be between 1 and max_session_length, not {min_session_length} "
                f"and {max_session_length}"
            )
        generator = torch.Generator().manual_seed(seed)
        features = features_of(self.schema, item_required=False)
        if not any(feature.item and feature.sequence for feature in features):
            # Lists hold several codes of one value then, and not events.
            max_session_length = min(max_session_length, _CODES_A_VALUE)
            min_session_length = 1
        n = torch.randint(min_session_length, max_session_length + 1, (num_rows,), generator=generator)
        columns = random_columns(features, n, seed)
        for name in target_names(self.schema):
            column = self.schema[name]
            if column.dtype.is_integer:
                classes = int((column.properties.get("domain") or {}).get("max") or 1) + 1
                columns[name] = torch.randint(0, classes, (num_rows,), generator=generator)
            else:
                columns[name] = torch.randn(num_rows, generator=generator)
        return {name: column.to(device) for name, column in columns.items()} if device is not None else columns


def _column(name: str, kind: str, largest: int = 0, longest: int = 0, tags: Sequence[str] = ()) -> Any:
    from modeling.schema import ColumnSchema

    properties: dict[str, Any] = {"domain": {"name": name, "min": 0, "max": largest}} if largest else {}
    lists: dict[str, Any] = {}
    if longest:
        properties["value_count"] = {"min": 1, "max": longest}
        lists = {"is_list": True, "is_ragged": True}
    own = [kind] if kind else []
    dtype = "float32" if kind == "continuous" or "regression" in tags else "int64"
    return ColumnSchema(name, tags=[*own, *tags], dtype=dtype, properties=properties, **lists)


@cache
def _sequence_data() -> SyntheticData:
    from modeling.schema import Schema

    events = ("event_hour_sin", "event_hour_cos", "event_weekday_sin", "event_weekday_cos", "item_age_days_norm")
    columns = [
        _column("session_id", "", tags=["session_id"]),
        _column("item_id", "categorical", 999, _LONGEST, ["item_id", "item"]),
        _column("category", "categorical", 49, _LONGEST, ["item"]),
        *(_column(name, "continuous", longest=_LONGEST) for name in events),
        _column("user_country", "categorical", 62, tags=["user"]),
        _column("user_age", "continuous", tags=["user"]),
        _column("purchase", "", 1, tags=["target", "binary_classification"]),
    ]
    return SyntheticData(Schema(columns))


@cache
def _row_data() -> SyntheticData:
    from modeling.schema import Schema

    numbers = ("event_hour_sin", "event_hour_cos", "event_weekday_sin", "event_weekday_cos", "item_age_days_norm")
    columns = [
        _column("item_id", "categorical", 999, tags=["item_id", "item"]),
        _column("categories", "categorical", 49, _CODES_A_VALUE, ["item"]),
        *(_column(name, "continuous") for name in numbers),
        _column("user_country", "categorical", 62, tags=["user"]),
        _column("user_age", "continuous", tags=["user"]),
        _column("click", "", 1, tags=["target", "binary_classification"]),
        _column("rating", "", tags=["target", "regression"]),
    ]
    return SyntheticData(Schema(columns))


def __getattr__(name: str) -> Any:
    # Made on first use: building a schema imports Merlin, which takes seconds.
    if name == "tabular_sequence_testing_data":
        return _sequence_data()
    if name == "tabular_testing_data":
        return _row_data()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
