"""The benchmark of training: what both sides get, the clock, and the program beside Transformers4Rec."""

import json
import subprocess
import sys
from itertools import repeat
from pathlib import Path

import pytest
import torch

from benchmarks import training
from benchmarks.t4r import environment
from benchmarks.training_ import data, timing
from common.errors import UserError
from modeling.data import read_file

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--items", "50", "--sessions", "64", "--length", "6", "--batch-size", "16", "--steps", "2", "--runs", "1"]


def test_sessions_are_made_alike(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        data.make(folder, 30, 100, 2, 5)
    one, other = (read_file(folder / data.SESSIONS, [data.item_feature(30)]) for folder in folders)
    assert one.offsets.equal(other.offsets)
    assert one.values["item_id"].equal(other.values["item_id"])
    assert sorted(set(one.lengths.tolist())) == [2, 3, 4, 5]
    # Low codes are frequent: a code's share falls as one divided by it.
    counts = one.values["item_id"].bincount(minlength=31)
    assert counts[0] == 0
    assert counts[1:4].sum() > counts[4:13].sum() > counts[22:].sum()


def test_batches_begin_anew_where_the_file_ends(tmp_path):
    data.make(tmp_path, 30, 10, 4, 4)
    batches = data.in_memory(tmp_path, 30, 4, 4, 5)
    assert [tuple(batch["item_id"].shape) for batch in batches] == [(4, 4)] * 5
    assert batches[0]["item_id"].equal(batches[2]["item_id"])
    assert not batches[0]["item_id"].equal(batches[1]["item_id"])


def test_passes_follow_each_other():
    batches = timing.endless([(0, "a"), (1, "b")], lambda element: element[1])
    assert [next(batches) for _ in range(5)] == ["a", "b", "a", "b", "a"]
    assert list(timing.endless([], lambda element: element)) == []


def test_the_clock_leaves_the_warm_up_out():
    model = torch.nn.Linear(2, 1)
    targets = iter([100, 100, 3, 5])
    settings = {"steps": 2, "warm_up": 2, "batch_size": 7, "learning_rate": 0.1, "weight_decay": 0.0}

    def loss(batch):
        return model(batch["x"]).square().mean(), next(targets)

    found = timing.measure(model, loss, repeat({"x": torch.ones(7, 2)}), settings, imports=0.0)
    assert found["targets"] == 4
    assert found["parameters"] == 3
    assert found["net_mib"] == found["peak_mib"] > 0
    assert found["sessions_per_s"] > 0
    assert next(targets, None) is None  # warm-up and steps, no more


def test_medians_and_headline():
    runs = [{"sessions_per_s": rate, "peak_mib": 10.0, "net_mib": 4.0, "targets": 8.0} for rate in (5.0, 1.0, 2.0)]
    assert training.middle(runs) == {**runs[2], "runs": [5, 1, 2]}
    raw, loader = ({"nextitem": training.middle(runs[:1]), "t4r": training.middle(some)} for some in (runs[1:2], runs))
    result = training.headline({"setup": {}, "modes": {"raw": raw, "loader": loader}})
    assert result["nextitem"] == {"sessions_per_s": 5, "peak_mib": 10, "net_mib": 4}
    assert result["t4r"]["sessions_per_s"] == 1
    assert result["modes"]["loader"]["t4r"]["sessions_per_s"] == 2


def test_unequal_work_is_refused():
    training.check({"nextitem": {"targets": 100.0}, "t4r": {"targets": 104.0}})
    with pytest.raises(UserError, match=r"different numbers of targets .*nextitem 100.0, t4r 120.0"):
        training.check({"nextitem": {"targets": 100.0}, "t4r": {"targets": 120.0}})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arch", "gpt2", "--masking", "mlm"], "clm is for gpt2"),
        (["--shortest", "21"], "--shortest must be"),
        (["--steps", "0"], "must be at least 1"),
        (["--sessions", "100"], "--sessions must be"),
        (["--modes", "raw,trainer"], "--modes raw,trainer"),
    ],
)
def test_mistakes_are_told_in_a_line(monkeypatch, arguments, words):
    monkeypatch.setattr(sys, "argv", ["training", *arguments])
    with pytest.raises(SystemExit) as stopped:
        training.main()
    assert str(stopped.value.code).startswith("error: ")
    assert words in str(stopped.value.code)


def _program(*arguments):
    command = [sys.executable, "-m", "benchmarks.training", *SMALL, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ours_alone(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["training", *SMALL, "--only", "nextitem", "--modes", "loader", "--json"])
    training.main()
    found = json.loads(capsys.readouterr().out)
    assert found["modes"]["loader"]["nextitem"]["targets"] == 16 * 5  # each event but the first
    assert found["nextitem"]["sessions_per_s"] == found["modes"]["loader"]["nextitem"]["runs"][0]
    assert "t4r" not in found


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "masking", "modes"), [("gpt2", "clm", "raw,loader"), ("xlnet", "mlm", "raw")])
def test_the_program_beside_transformers4rec(arch, masking, modes):
    try:
        environment.python()
    except UserError as error:
        pytest.skip(str(error))
    # Many steps: masks are drawn at random, and their number is compared.
    found = json.loads(_program("--arch", arch, "--masking", masking, "--modes", modes, "--steps", "40", "--json"))
    for mode in modes.split(","):
        ours, theirs = (found["modes"][mode][name] for name in ("nextitem", "t4r"))
        assert ours["targets"] == pytest.approx(theirs["targets"], rel=0.05)
        assert 0.9 < ours["parameters"] / theirs["parameters"] < 1.1
        assert min(ours["loss"], theirs["loss"]) > 0
    assert set(found["t4r"]) == {"sessions_per_s", "peak_mib", "net_mib"}
