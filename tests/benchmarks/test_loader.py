"""The benchmark of data loaders, small: all of them go over all sessions."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import loader
from modeling.data import joined, read_file
from modeling.loading.parts import parquet_files

ROOT = Path(__file__).resolve().parents[2]


def test_sessions_are_made_alike_and_fit_the_features(tmp_path: Path) -> None:
    loader.make(tmp_path / "a", 100)
    loader.make(tmp_path / "b", 100)
    one, other = (
        joined([read_file(file, loader.FEATURES) for file in parquet_files(tmp_path / name)]) for name in "ab"
    )
    assert len(one) == 100
    assert one.offsets.equal(other.offsets)
    assert all(values.equal(other.values[name]) for name, values in one.values.items())
    assert int(one.lengths.min()) >= 2
    assert int(one.lengths.max()) <= loader.LONGEST


def test_every_loader_gives_all_sessions(tmp_path: Path) -> None:
    loader.make(tmp_path, 100)
    for name, make in loader.LOADERS.items():
        if name == loader.MERLIN:  # below, in a process of its own
            continue
        batches, size = make(tmp_path, 16)
        for _ in range(2):
            assert sorted(size(batch) for batch in batches) == [4, 16, 16, 16, 16, 16, 16], name


@pytest.mark.slow
def test_the_program_beside_merlin() -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.loader",
        "--sessions",
        "800",
        "--peer-sessions",
        "400",
        "--runs",
        "1",
        "--json",
        "--only",
    ]
    done = subprocess.run([*command, "merlin", "in memory"], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["loader"] for one in found["loaders"]] == ["merlin-dataloader", "ours, in memory"]
    assert [one["sessions"] for one in found["loaders"]] == [400, 800]
    assert all(min(one["first_pass"], one["later_pass"], one["cpu_second"]) > 0 for one in found["loaders"])
