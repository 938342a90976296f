"""The floor: reading the columns of the job from the files, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset  # read_table would import it, and pandas, inside the measured time
import pyarrow.parquet as pq

from benchmarks.engines import COLUMNS


def settings() -> str:
    """What it is, in a few words."""
    return f"pyarrow {pa.__version__}, {pa.cpu_count()} threads"


def run(files: list[Path], out: Path) -> None:
    """Read every column, a file at a time; nothing is kept or written."""
    for path in files:
        pq.read_table(path, columns=list(COLUMNS))
