"""The original ids behind the codes of a features folder, for people to read."""

from __future__ import annotations

import json
from pathlib import Path

from preprocessing.preprocess import load_workflow
from preprocessing.workflow import item_encoder

# Of padding, missing and unknown items: the codes that `preprocessing.kernels` reserves.
_RESERVED = ("", "(missing)", "(unknown)")


def item_names(features: Path | str) -> list[str]:
    """The item behind each code, as text.

    Parameters
    ----------
    features : Path or str
        The folder that ``preprocess`` wrote; its manifest must have been verified, because the workflow in it is a
        pickle.

    Returns
    -------
    list of str
        One a code, those of padding, missing and unknown items first.
    """
    features = Path(features)
    columns = json.loads((features / "request.json").read_text(encoding="utf-8"))["columns"]
    own = next(column["name"] for column in columns if column["role"] == "item")
    encoder = item_encoder(load_workflow(features), own)
    between = [f"(unknown, group {number + 1})" for number in range(encoder.buckets)]
    return [*_RESERVED, *between, *(str(value) for value in encoder.values[own].to_pylist())]
