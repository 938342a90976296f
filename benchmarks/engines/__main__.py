"""One engine in this process, measured from inside.

    python -m benchmarks.engines ENGINE FOLDER OUT RESULT

Writes to RESULT, as JSON: wall and CPU seconds (user and system, of this process and of those it waited for) of the
job alone, without starting Python and importing, the most memory that this process held at any time, imports too,
and what the engine says of itself. What is not installed is named under ``missing``.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path

from benchmarks.engines.data import paths


def _cpu_s() -> float:
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def _peak_gib() -> float:
    # ru_maxrss would count what the parent held when it started this process; VmHWM begins anew.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 2**20
    raise OSError("/proc/self/status has no VmHWM")


def main(engine: str, folder: Path, out: Path, result: Path) -> None:
    """Run the engine on the events of a folder."""
    try:
        module = importlib.import_module(f"benchmarks.engines.{engine}")
    except ModuleNotFoundError as error:
        result.write_text(json.dumps({"missing": error.name}))
        return
    files, settings = paths(folder), module.settings()
    cpu, began = _cpu_s(), time.perf_counter()
    module.run(files, out)
    wall_s, cpu_s = time.perf_counter() - began, _cpu_s() - cpu
    result.write_text(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "peak_gib": _peak_gib(), "settings": settings}))


if __name__ == "__main__":
    main(sys.argv[1], *(Path(argument) for argument in sys.argv[2:]))
