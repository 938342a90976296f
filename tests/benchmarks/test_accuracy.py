"""The table of accuracy: what it is made of, and the program as a whole."""

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import accuracy
from benchmarks.accuracy_ import contenders, data, t4r
from benchmarks.accuracy_.contenders import Result
from benchmarks.accuracy_.kept import Kept, Outcome
from benchmarks.accuracy_.page import write
from benchmarks.accuracy_.summary import measured, rows_of, verdict
from benchmarks.t4r import environment
from common.errors import UserError
from modeling.data import Sessions
from modeling.schema import Feature
from modeling.settings import ModelSettings
from pipeline import load_run
from preprocessing.preprocess import preprocess

DAY = 24 * 3600
BEGIN = 1_700_000_000
YAML = """
name: rounds
events: {files: events.parquet, session: visit, item: sku, time: {column: at, unit: s}}
split: {valid: 0.2, test: 0.2}
model: {d_model: 16, n_head: 2, n_layer: 1, epochs: 1, threads: 1}
"""


@pytest.fixture
def shop(tmp_path):
    """300 sessions that go around a catalogue of 20 in steps of one, four a day, written in no order."""
    random = np.random.default_rng(0)
    rows = []
    for visit in range(300):
        first, n = int(random.integers(20)), int(random.integers(3, 8))
        rows += [(visit, f"i{(first + k) % 20}", BEGIN + visit * DAY // 4 + k) for k in range(n)]
    rows = [rows[i] for i in random.permutation(len(rows))]
    table = pa.table(dict(zip(("visit", "sku", "at"), map(list, zip(*rows, strict=True)), strict=True)))
    pq.write_table(table, tmp_path / "events.parquet")
    (tmp_path / "rounds.yaml").write_text(YAML)
    return tmp_path / "rounds.yaml"


def _sessions(*rows):
    offsets = torch.tensor([0] + [len(row) for row in rows]).cumsum(0)
    return Sessions({"item_id": torch.tensor([i for row in rows for i in row])}, offsets)


def _data(times):
    item = Feature("item_id", "categorical", 7, 3, True)
    # 3 is popular at first, 4 at the end; 5 is what the last days of all have.
    train = _sessions([3, 3, 3, 3], [3, 3, 3], [4, 4], [4, 4], [5, 5])
    return data.Data([item], 20, train, _sessions([3, 4], [6, 4]), _sessions([6, 4], [6, 2]), times, {})


def test_validation_chooses():
    grids = {"recent-popularity": [{"days": days} for days in (100, 2, 0.5)]}
    found = contenders.baseline("recent-popularity", _data(torch.tensor([0.0, 1.0, 8.0, 8.5, 10.0])), "last", grids)
    assert found.chosen == {"days": 2}
    assert found.valid == 1.0
    assert found.ranks[0].nan_to_num(-1).tolist() == [1, -1]  # an item that training never saw is not measured
    assert measured(found) == {"sessions": 1, "left_out": 1}
    assert contenders.baseline("recent-popularity", _data(None), "last", grids) is None


def test_times_are_those_of_the_rows(shop, tmp_path):
    run = load_run(shop)
    preprocess(run, tmp_path / "features")
    files = sorted((tmp_path / "features" / "train").glob("*.parquet"))
    visits = np.concatenate([pq.read_table(file).column("session_id").to_numpy() for file in files])
    assert len(visits) == 180
    times = data.train_times(run)
    assert np.allclose(times.numpy(), (BEGIN + visits * DAY // 4) / DAY)
    assert torch.equal(data.prepare(run).times, times)


def test_rows():
    sessions = 400
    generator = torch.Generator().manual_seed(0)
    poor = torch.randint(5, 19, (sessions,), generator=generator).float()
    good, same = poor - 3, poor.clone()
    unknown = torch.full((3,), float("nan"))
    results = [
        Result("poor", False, [torch.cat([poor, unknown])], 0.3, 1.0, {"steps": 3}),
        Result("lucky", False, [torch.cat([good, unknown])], 0.2, 1.0),
        Result("model", True, [torch.cat([good, unknown]), torch.cat([same, unknown])], 0.9, 60.0),
    ]
    rows = rows_of(results, resamples=200)
    assert [row["model"] for row in rows] == ["lucky", "model", "poor"]
    assert {row["to_beat"] for row in rows} == {"poor"}  # validation says so, and models do not count
    lucky, model, worst = rows
    assert worst["differences"] == {name: {"mean": 0, "low": 0, "high": 0} for name in ("ndcg@20", "mrr@20")}
    assert verdict(worst) == "to beat"
    gain = (1 / torch.log2(good + 1) - 1 / torch.log2(poor + 1)).double().mean().item()
    assert lucky["differences"]["ndcg@20"]["mean"] == pytest.approx(gain, abs=1e-6)
    assert model["differences"]["ndcg@20"]["mean"] == pytest.approx(gain / 2, abs=1e-6)
    assert verdict(lucky) == f"{gain:+.4f}*"
    spread = model["metrics"]["ndcg@20"]["spread"]
    assert spread == pytest.approx(gain / 2**0.5, abs=1e-6)
    assert worst["metrics"]["recall@20"]["mean"] == 1
    gain = (1 / good - 1 / poor).double().mean().item()
    assert lucky["differences"]["mrr@20"]["mean"] == pytest.approx(gain, abs=1e-6)
    assert lucky["t4r"] is None
    rivals = [
        Result("t4r gpt2:clm", True, [torch.cat([poor + 1, unknown])], 0.4, 1.0),
        Result("t4r a", True, results[1].ranks, 0.1, 1),
    ]
    rows = {row["model"]: row for row in rows_of([*results, *rivals], resamples=200)}
    assert {row["to_beat"] for row in rows.values()} == {"poor"}
    assert {row["t4r"] for row in rows.values()} == {"t4r gpt2:clm"}
    gain = (1 / torch.log2(poor + 1) - 1 / torch.log2(poor + 2)).double().mean().item()
    assert rows["poor"]["to_t4r"]["ndcg@20"]["mean"] == pytest.approx(gain, abs=1e-6)


def test_page_stands_alone(tmp_path):
    ranks = torch.arange(1, 41).float()
    results = [Result("a <b>", False, [ranks], 0.3, 0.0), Result("gpt2", True, [ranks + 1, ranks], 0.3, 5.0)]
    result = {"name": "shop & co", "exclude": "last", "seeds": [0, 1], "items": 9, "sessions": 40, "left_out": 0}
    write(tmp_path / "page.html", result | {"rows": rows_of(results, 50)})
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 3
    assert "shop &amp; co" in page
    assert "a &lt;b&gt;" in page
    assert "a <b>" not in page
    assert "<script" not in page
    assert "src=" not in page


def test_models_are_checked_before_anything_is_done():
    with pytest.raises(UserError, match=r"--models gpt5: .*must be one of"):
        contenders.runs_of("gpt5", ModelSettings(), [0])
    with pytest.raises(UserError, match=r"--models gpt2:mlm: .*mlm"):
        contenders.runs_of("gpt2:mlm", ModelSettings(), [0])
    runs = contenders.runs_of("xlnet:mlm", ModelSettings(masking="clm", epochs=3), [4, 5])
    assert [(run.architecture, run.objective, run.epochs, run.seed) for run in runs] == [
        ("xlnet", "mlm", 3, 4),
        ("xlnet", "mlm", 3, 5),
    ]
    (run,) = contenders.runs_of(
        "accurate", ModelSettings(architecture="xlnet", masking="plm", d_model=32, top_k=7), [3]
    )
    assert (run.architecture, run.objective, run.d_model, run.top_k, run.seed) == ("gpt2", "clm", 128, 7, 3)
    assert contenders.runs_of("accurate", ModelSettings(), [3], epochs=2)[0].epochs == 2


@pytest.fixture
def run_program(shop, monkeypatch, capsys):
    """The program in this process: starting another one takes longer than what it does."""

    def program(*arguments):
        monkeypatch.setattr(sys, "argv", ["accuracy", str(shop), "--output", str(shop.parent / "out"), *arguments])
        accuracy.main()
        return capsys.readouterr().out

    return program


def test_program(shop, run_program):
    first = json.loads(run_program("--models", "gpt2", "--seeds", "0", "--epochs", "2", "--json"))
    result = json.loads(run_program("--models", "gpt2,gru4rec", "--seeds", "0,1", "--epochs", "2", "--json"))
    # The second command has trained two and one of gru4rec more; the first's run is as it was.
    assert len(list((shop.parent / "out" / "runs").iterdir())) == 4
    assert {row["model"] for row in first["rows"]} == {*contenders.DEFAULT, "gpt2", "gpt2 + counts"}
    assert json.loads((shop.parent / "out" / "rounds.json").read_text()) == result
    assert "<svg" in (shop.parent / "out" / "rounds.html").read_text()
    rows = {row["model"]: row for row in result["rows"]}
    assert set(rows) == {*contenders.DEFAULT, "gpt2", "gpt2 + counts", "gru4rec"}
    # Two epochs teach the network little; the counts that it is given know what follows.
    assert rows["gpt2 + counts"]["metrics"]["recall@10"]["mean"] == 1
    assert rows["gpt2"]["metrics"]["recall@10"]["mean"] < 1
    # One item always follows the last: counting finds it, popularity does not.
    assert rows["markov"]["metrics"]["recall@10"]["mean"] == 1
    assert rows["markov"]["metrics"]["ndcg@20"]["mean"] > 0.99 > rows["popularity"]["metrics"]["ndcg@20"]["mean"]
    assert rows["gru4rec"]["metrics"]["ndcg@20"]["runs"] == 2
    assert result["sessions"] == 60
    assert result["items"] == 20


def test_ranks_of_another_process():
    answers = [
        {"ranks": [1.0, float("nan"), 3.0], "valid": 0.2, "seconds": 10.0, "epochs": 2},
        {"ranks": [2.0, float("nan"), float("inf")], "valid": 0.4, "seconds": 20.0, "epochs": 5},
    ]
    found = contenders.result_of("t4r gpt2:clm", [t4r.outcome_of("t4r gpt2:clm", answer, 3) for answer in answers])
    assert (found.valid, found.seconds, found.chosen) == (pytest.approx(0.3), 15, {"epochs": "2/5"})
    assert measured(found) == {"sessions": 2, "left_out": 1}
    with pytest.raises(UserError, match="t4r gpt2:clm ranked other sessions than the 4"):
        t4r.outcome_of("t4r gpt2:clm", answers[0], 4)


def test_a_run_is_made_once(tmp_path):
    made = []

    def train(value):
        made.append(value)
        return [Outcome(torch.tensor([1.5, float("nan"), float("inf")]), value, 2.0, 3)]

    data, settings = _data(None), ModelSettings()
    kept = Kept(tmp_path / "runs", data)
    (first,) = kept.once("gpt2", settings, lambda: train(0.5))
    (again,) = Kept(tmp_path / "runs", data).once("gpt2", settings, lambda: train(0.6))
    assert torch.equal(first.ranks.nan_to_num(-1), again.ranks.nan_to_num(-1))
    assert (again.valid, again.seconds, again.epoch) == (0.5, 2.0, 3)
    # Where it runs is not what it is; another name, seed, setting or session is.
    kept.once("gpt2", settings.model_copy(update={"threads": 7}), lambda: train(0.6))
    assert made == [0.5]
    kept.once("gpt2:plm", settings, lambda: train(1))
    kept.once("gpt2", settings.model_copy(update={"seed": 5}), lambda: train(2))
    kept.once("gpt2", settings.model_copy(update={"dropout": 0.4}), lambda: train(3))
    data.valid = _sessions([3, 4], [6, 5])
    Kept(tmp_path / "runs", data).once("gpt2", settings, lambda: train(4))
    assert made == [0.5, 1, 2, 3, 4]
    assert len(list((tmp_path / "runs").iterdir())) == 5
    assert Kept(None, data).once("gpt2", settings, lambda: train(5))[0].valid == 5


@pytest.mark.slow
def test_beside_transformers4rec(run_program):
    try:
        environment.python()
    except UserError as error:
        pytest.skip(str(error))
    learning = [
        "--epochs",
        "20",
        *(f"--set=model.{it}" for it in ("batch_size=16", "learning_rate=0.01", "patience=20")),
    ]
    shown = run_program(
        "--models",
        "",
        "--baselines",
        "markov,popularity",
        "--with-t4r",
        "gpt2:clm,gpt2:clm ids,xlnet:mlm ids",
        *learning,
        "--json",
    )
    rows = {row["model"]: row for row in json.loads(shown)["rows"]}
    assert set(rows) == {"markov", "popularity", "t4r gpt2:clm ids", "t4r xlnet:mlm ids"}
    # One item always follows the last.
    goals = {name: row["metrics"]["ndcg@20"]["mean"] for name, row in rows.items()}
    assert goals["t4r gpt2:clm ids"] > goals["popularity"] + 0.2
    assert json.loads(shown)["seeds"] == [0]


def test_table(run_program):
    shown = run_program("--models", "", "--baselines", "popularity,sequential-rules")
    assert shown.index("sequential-rules") < shown.index("popularity")
    assert "Chosen by validation: sequential-rules (steps" in shown
    assert "spread" not in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--models", "", "--baselines", "magic"), "--baselines magic"),
        (("--models", "", "--baselines", ""), "--baselines: at least one"),
        (("--models", "gpt2:mlm"), "--models gpt2:mlm"),
        (("--seeds", "x"), "--seeds x"),
        (("--with-t4r", "bert"), "--with-t4r bert: must be of gpt2:clm ids, gpt2:clm"),
    ],
)
def test_mistakes_are_told_in_a_line(run_program, arguments, words):
    with pytest.raises(SystemExit) as stopped:
        run_program(*arguments)
    assert str(stopped.value.code).startswith("error: ")
    assert words in str(stopped.value.code)
    assert "\n" not in str(stopped.value.code)
