"""Our features as the schema that Transformers4Rec reads: TensorFlow metadata in JSON, as in its own repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modeling.schema import Feature


def schema_of(features: Sequence[Feature], limit: int) -> dict[str, Any]:
    """The schema of some features.

    Parameters
    ----------
    features : sequence of Feature
        Vectors are left out: Transformers4Rec takes them from its data loader only.
    limit : int
        The most events of a session.

    Returns
    -------
    dict
        For ``json.dumps``.
    """
    return {"feature": [_column(feature, limit) for feature in features if feature.kind != "embedding"]}


def _column(feature: Feature, limit: int) -> dict[str, Any]:
    codes = feature.kind == "categorical"
    tags = [feature.kind, *(["item_id"] if feature.item else []), *(["list"] if feature.sequence else [])]
    column: dict[str, Any] = {
        "name": feature.name,
        "type": "INT" if codes else "FLOAT",
        "annotation": {"tag": tags},
    }
    if codes:
        column["intDomain"] = {
            "name": feature.name,
            "min": "0",
            "max": str(feature.cardinality - 1),
            "isCategorical": True,
        }
    if feature.sequence:
        column["valueCount"] = {"min": "1", "max": str(limit)}
    return column
