"""A module in a process of its own, in whichever environment: JSON in, JSON out.

A fresh process a question, because the highest memory use of a process never falls, and because two versions of a
library cannot live in one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.t4r.environment import ROOT
from common.errors import UserError

# Of the environment that asks: it would lead the one that answers astray.
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_CPU = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def ask(interpreter: Path | str, module: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run ``interpreter -m module REQUEST ANSWER`` in the project's root, and read the answer.

    Parameters
    ----------
    interpreter : Path or str
        Of the environment.
    module : str
        Ends with ``answering(function)``.
    request : dict
        Plain data.

    Returns
    -------
    dict
        What the module's function returned. Numbers may be infinite or NaN.

    Raises
    ------
    UserError
        With the last line of its errors, when it fails.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN} | _CPU
    with tempfile.TemporaryDirectory() as scratch:
        asked, answer = Path(scratch) / "request.json", Path(scratch) / "answer.json"
        asked.write_text(json.dumps(request), encoding="utf-8")
        command = [str(interpreter), "-W", "ignore", "-m", module, str(asked), str(answer)]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode or not answer.exists():
            lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
            raise UserError(f"{module} failed: {lines[-1][:300]}")
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def answering(function: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The other side of `ask`: call the function with the request, and write down what it returns."""
    asked, answer = map(Path, sys.argv[1:])
    answer.write_text(json.dumps(function(json.loads(asked.read_text(encoding="utf-8")))), encoding="utf-8")
