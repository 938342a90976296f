"""Milliseconds to prepare one request: the compiled program beside the NVTabular workflow it was compiled from.

    python -m benchmarks.request [FEATURES]      # a folder that `nextitem preprocess` wrote; demo/features otherwise

Both get the same sessions, one a request, in this process; the median over rounds in turn is what counts. The
workflow is what merlin-systems' stock TransformWorkflow runs inside Triton for every request.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from common.artefacts import read_manifest
from common.display import show_table
from preprocessing.preprocess import load_workflow
from serving.compile import compile_workflow
from serving.runtime.program import RequestProgram
from serving.verify import both_ways

SESSIONS, ROUNDS = 50, 5


def main(features: Path) -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    read_manifest(features, "features", "nextitem preprocess")
    request = json.loads((features / "request.json").read_text())
    workflow = load_workflow(features)
    program = RequestProgram(*compile_workflow(workflow, request))
    wire, frame = both_ways(program, features / "sample.parquet")
    sessions = frame[program.session].to_numpy()
    rows = [np.flatnonzero(sessions == session) for session in list(dict.fromkeys(sessions))[:SESSIONS]]
    requests = [{name: values[r] for name, values in wire.items()} for r in rows]
    frames = [frame.iloc[r].reset_index(drop=True) for r in rows]
    took: dict[str, list[float]] = {"NVTabular workflow": [], "compiled program": []}
    for _ in range(ROUNDS):
        for name, run, inputs in (
            ("NVTabular workflow", workflow.transform, frames),
            ("compiled program", program.run, requests),
        ):
            for one in inputs:
                began = time.perf_counter()
                run(one)
                took[name].append((time.perf_counter() - began) * 1000)
    medians = {name: statistics.median(values) for name, values in took.items()}
    slowest = medians["NVTabular workflow"]
    rows_out = [[name, f"{value:.3f}", f"{slowest / value:.0f}x"] for name, value in medians.items()]
    show_table("Preparing a one-session request, median", ("", "ms", "faster"), rows_out)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo/features"))
