"""The environment that Transformers4Rec 23.12 runs in: made once, with pins that work together."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from common.errors import UserError
from common.progress import step

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".t4r-venv"
PINS = (
    "transformers4rec==23.12.0",
    "torch==2.13.0",
    "numpy==1.26.4",
    "pandas==1.5.3",
    "dask==2023.9.2",
    "distributed==2023.9.2",
    "dask-cuda==23.10.0",
    "pyarrow==14.0.2",
    "protobuf<6",
    "tensorflow-metadata==1.17.1",
    "nvtabular==23.8.0",
    "accelerate==0.21.0",
    "torchmetrics==1.2.1",
    "setuptools<81",
    # What our training loop and our ranking import; Transformers4Rec uses neither.
    "pydantic>=2.11",
    "pyyaml>=6.0.2",
    "rich>=14.0",
    "scipy>=1.13",
)


def python(folder: Path = FOLDER) -> Path:
    """The interpreter of the environment, which is made when it is missing or has other pins.

    Parameters
    ----------
    folder : Path
        Where it is kept.

    Raises
    ------
    UserError
        When it cannot be made.
    """
    interpreter = folder / "bin" / "python"
    if ready(folder):
        return interpreter
    uv = _uv()
    environment = os.environ | {"VIRTUAL_ENV": str(folder)}
    if links := _find_links():
        environment["UV_FIND_LINKS"] = links
    # Elsewhere than in the project, whose own overrides uv would obey.
    with step("Installing Transformers4Rec 23.12, once"), TemporaryDirectory() as elsewhere:
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", *PINS],
        ):
            done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
            if done.returncode:
                why = " ".join(done.stderr.split())[-300:]
                raise UserError(f"Transformers4Rec 23.12 cannot be installed into {folder.name}: {why}")
        _marker(folder).write_text("\n".join(PINS) + "\n", encoding="utf-8")
    return interpreter


def ready(folder: Path = FOLDER) -> bool:
    """Whether the environment is there, with these pins."""
    marker = _marker(folder)
    return marker.is_file() and marker.read_text(encoding="utf-8").split("\n")[:-1] == list(PINS)


def _marker(folder: Path) -> Path:
    return folder / "nextitem-pins.txt"


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise UserError("Transformers4Rec 23.12 is installed with uv, which is not here: make install")
    return found


def _find_links() -> str | None:
    """A folder of wheels that pip is configured with holds for uv too, as in the Makefile."""
    if "UV_FIND_LINKS" in os.environ:
        return os.environ["UV_FIND_LINKS"]
    shown = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    found = re.search(r"find-links='(.*)'", shown)
    return found.group(1) if found else None
