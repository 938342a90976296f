"""The job as nextitem's preprocessing stage does it, with everything that it does by default.

That is more than the other engines do: checks of every value, a fitted workflow, a schema and a manifest with the
SHA-256 of every file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

import common.page.svg  # noqa: F401  # the stage imports it, with matplotlib, inside the measured time
from benchmarks.engines import CODED, MAX_LENGTH, MIN_LENGTH, SHARE
from common import __version__
from preprocessing.engine import nvtabular, postorder_iter_nodes
from preprocessing.operators.encode import Encode
from preprocessing.preprocess import load_workflow, preprocess
from preprocessing.settings import Dataset


def settings() -> str:
    """What it is, in a few words."""
    return f"nextitem {__version__} in nvtabular {nvtabular.__version__}, pyarrow {pa.__version__}"


def describe(files: list[Path]) -> Dataset:
    """The description of the data set, as a YAML file would hold it."""
    content: dict[str, Any] = {
        "name": "benchmark",
        "data_root": files[0].parent,
        "events": {"files": [path.name for path in files], "session": "session_id", "item": "item_id", "time": "time"},
        "features": {
            "item": {"categorical": ["category"], "continuous": [{"column": "price", "log": True}]},
            "time": ["hour"],
        },
        "sessions": {"min_length": MIN_LENGTH, "max_length": MAX_LENGTH},
        "split": {"valid": SHARE, "test": SHARE},
    }
    return Dataset.model_validate(content)


def run(files: list[Path], out: Path) -> None:
    """Do the job of `benchmarks.engines`."""
    preprocess(describe(files), out)


def vocabulary(out: Path) -> dict[str, pa.Table]:
    """The values behind the codes, and their counts, from the fitted workflow."""
    operators = [node.op for node in postorder_iter_nodes(load_workflow(out).output_node)]
    found = {}
    for operator in operators:
        if isinstance(operator, Encode):
            for name in set(CODED) & set(operator.values):
                found[name] = pa.table({"value": operator.values[name], "count": operator.counts[name]})
    return found
