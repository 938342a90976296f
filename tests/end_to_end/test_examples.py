"""The programs in examples/ run as written, and their models find the rule in the data."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "transformers4rec"


@pytest.mark.parametrize(
    ("program", "metric"),
    [
        ("next_item", "recall_at_1"),
        pytest.param("rnn", "recall_at_1", marks=pytest.mark.slow),
        pytest.param("trainer", "recall_at_1", marks=pytest.mark.slow),
        pytest.param("binary_classification", "accuracy", marks=pytest.mark.slow),
    ],
)
def test_it_runs_trains_and_recommends(program: str, metric: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / f"{program}.py"], capture_output=True, text=True, cwd=tmp_path, timeout=400
    )
    assert done.returncode == 0, done.stderr
    (value,) = re.findall(rf"{metric}\s+([\d.]+)", done.stdout)
    assert float(value) >= 0.95
    if program != "binary_classification":
        session = [int(item) for item in re.findall(r"session\s+\[(.*)\]", done.stdout)[0].split(",")]
        recommended = [int(item) for item in re.findall(r"recommended\s+\[(.*)\]", done.stdout)[0].split(",")]
        assert recommended[0] == (session[-1] + session[-1] - session[-2] - 1) % 60 + 1
