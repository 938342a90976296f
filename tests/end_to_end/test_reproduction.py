"""examples/recsys2021 and the two challenges, on small data in the form of the public downloads."""

import gzip
import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from examples.recsys2021 import __main__ as program
from examples.recsys2021 import counting, incremental, recipes
from examples.recsys2021.downloads import DOWNLOADS, prepare
from modeling.evaluation import evaluate
from modeling.evaluation.sessions_file import read_session_ids
from modeling.model import Model
from modeling.schema import Feature
from pipeline import load_run, run_pipeline
from preprocessing.preprocess import preprocess
from preprocessing.vocabulary import item_names

from . import public_downloads

ROOT = Path(__file__).parents[2]
QUICK = ["model.d_model=16", "model.n_head=2", "model.n_layer=1", "model.epochs=1", "model.threads=1"]
ITEM = Feature("item_id", "categorical", 20, 3, True)
SIDE = [ITEM, Feature("brand", "categorical", 9, 3), Feature("price", "continuous"), Feature("age", "continuous")]


def events(folder):
    read = pq.read_table(folder / "events.parquet").sort_by([("session", "ascending"), ("position", "ascending")])
    return read.to_pylist()


# The downloads


def test_a_session_belongs_to_the_day_that_it_starts_on(tmp_path):
    (tmp_path / "yoochoose-clicks.dat").write_text(
        "7,2014-04-01T23:59:58.500Z,214,0\n7,2014-04-02T00:10:00.000Z,215,S\n9,2014-04-03T00:00:00.001Z,214,0\n"
        "8,2014-04-01T03:00:00.000Z,216,0\n"
    )
    report = prepare(tmp_path, "yoochoose", tmp_path / "events")
    assert report == {"rows": 4, "events": 4, "sessions": 3, "windows": 3}
    found = events(tmp_path / "events")
    assert [(row["session"], row["item_id"], row["category"], row["position"]) for row in found] == [
        ("0001/7", "214", "0", 0),
        ("0001/7", "215", "S", 1),
        ("0001/8", "216", "0", 3),
        ("0003/9", "214", "0", 2),
    ]
    assert found[0]["timestamp"] == datetime(2014, 4, 1, 23, 59, 58, 500_000)


def test_packed_csv_with_gaps_keeps_the_order_of_the_file(tmp_path):
    header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
    rows = [f"2019-10-01 00:00:00 UTC,view,{item},2053013552326770905,,,33.20,55,s" for item in (5, 3, 9, 3)]
    rows.append("2019-10-01 00:00:00 UTC,view,1,2053013552326770905,a.b,aqua,1.00,55,")
    with gzip.open(tmp_path / "2019-Oct.csv.gz", "wt") as stream:
        stream.write("\n".join([header, *rows]) + "\n")
    prepare(tmp_path, "rees46", tmp_path / "events")
    found = events(tmp_path / "events")
    assert [row["product_id"] for row in found] == ["5", "3", "9", "3"], "the row without a session is left out"
    assert (found[0]["price"], found[0]["brand"], found[0]["category_id"]) == (33.2, None, "2053013552326770905")


def test_an_article_counts_once_a_session_and_hours_are_those_of_the_start(tmp_path):
    hour, start = 3_600_000, 1_506_816_000_000  # 2017-10-01 00:00
    header = (
        "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,click_environment,"
        "click_deviceGroup,click_os,click_country,click_region,click_referrer_type"
    )

    def row(session, begins, article, at):
        return f"1,{session},{begins},2,{article},{at},4,1,17,1,21,2"

    (tmp_path / "deep").mkdir()
    first = [
        row(1, start + 9, 70, start + hour),
        row(1, start + 9, 71, start + hour + 1),
        row(1, start + 9, 70, start + hour + 2),
    ]
    (tmp_path / "deep" / "clicks_hour_000.csv").write_text("\n".join([header, *first]) + "\n")
    (tmp_path / "deep" / "clicks_hour_001.csv").write_text("")
    second = [row(2, start + 2 * hour, 70, start + 2 * hour)]
    (tmp_path / "deep" / "clicks_hour_002.csv").write_text("\n".join([header, *second]) + "\n")
    assert prepare(tmp_path, "g1", tmp_path / "events")["windows"] == 3
    found = [(row["session"], row["click_article_id"], row["click_region"]) for row in events(tmp_path / "events")]
    assert found == [("0001/1", "70", 21), ("0001/1", "71", 21), ("0003/2", "70", 21)]


def test_half_an_hour_without_a_view_ends_a_session(tmp_path):
    begin = int(datetime(2017, 1, 1, tzinfo=UTC).timestamp())
    views = [
        {"id": "a", "time": begin, "category1": "nyheter|trondheim", "author": ["x", "y"]},
        {"id": "b", "time": begin + 1800, "author": "z"},  # just in time
        {"time": begin + 1801, "title": "the front page"},
        {"id": "c", "time": begin + 2 * 1800 + 1},
        {"id": "a", "time": begin + 2 * 1800 + 2},
        {"id": "a", "time": begin + 2 * 1800 + 3},
    ]
    lines = [json.dumps({"userId": "u", **view}) for view in views]
    (tmp_path / "20170101").write_text("\n".join(lines) + "\n")
    (tmp_path / "20170117").write_text("not one of the paper's days\n")
    prepare(tmp_path, "adressa", tmp_path / "events")
    found = events(tmp_path / "events")
    assert [(row["session"], row["id"]) for row in found] == [
        ("0001/u/1", "a"), ("0001/u/1", "b"), ("0002/u/2", "c"), ("0002/u/2", "a"),
    ]  # fmt: skip
    assert [(row["category0"], row["category1"], row["author"]) for row in found[:2]] == [
        ("nyheter", "nyheter|trondheim", "x"),
        (None, None, "z"),
    ]


def test_what_is_wrong_with_a_download_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no file such as 2019-Oct\.csv"):
        prepare(tmp_path, "rees46", tmp_path / "events")
    (tmp_path / "yoochoose-clicks.dat").write_text("1,yesterday,2,0\n")
    with pytest.raises(UserError, match=r"yoochoose-clicks\.dat is not what the download has"):
        prepare(tmp_path, "yoochoose", tmp_path / "events")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "yoochoose-clicks.dat").write_text("")
    with pytest.raises(UserError, match="is there twice"):
        prepare(tmp_path, "yoochoose", tmp_path / "events")
    assert not (tmp_path / "events").exists()


# The recipes


def test_the_recipes_are_complete_and_agree_with_the_descriptions():
    counts = {dataset: len(recipes.recipes(dataset)) for dataset in DOWNLOADS}
    assert counts == {"rees46": 12, "yoochoose": 9, "g1": 12, "adressa": 12}
    for dataset in DOWNLOADS:
        there = recipes.recipes(dataset)
        assert {row["recipe"] for row in recipes.figures(dataset) if row["recipe"]} == set(there)
        assert all(recipe.d_model % recipe.n_head == 0 for recipe in there.values())
        run, recipe = load_run(ROOT / "examples" / "recsys2021" / f"{dataset}.yaml"), recipes.find(dataset, "xlnet")
        same = ["d_model", "n_layer", "n_head", "dropout", "label_smoothing", "weight_decay", "batch_size", "epochs"]
        same += ["mlm_probability", "learning_rate", "architecture", "masking"]
        for name in same:
            assert getattr(run.model, name) == pytest.approx(getattr(recipe, name)), (dataset, name)


def test_recipes_are_found_by_what_the_paper_calls_them():
    assert recipes.find("g1", "xlnet").recipe == "xlnet:mlm"
    assert recipes.find("g1", "electra").masking == "rtd"
    assert recipes.find("g1", "xlnet", "mlm", "soft").soft_number == 20
    with pytest.raises(UserError, match=r"no xlnet:mlm\+soft of yoochoose: it has gru:clm"):
        recipes.find("yoochoose", "xlnet", side="soft")


@pytest.mark.parametrize("name", sorted(recipes.recipes("g1")))
def test_a_recipe_becomes_a_model_that_learns(name):
    recipe = recipes.recipes("g1")[name]
    small = {"d_model": 16, "item_dim": 12, "n_head": 2 if recipe.n_head > 1 else 1, "swap_noise": 0.5}
    recipe = recipe.model_copy(update=small)
    torch.manual_seed(0)
    model = recipes.build(recipe, SIDE, 6)
    assert model.inputs.item_table.weight.shape == (20, 12)
    assert {feature.name for feature in model.features} == ({f.name for f in SIDE} if recipe.side else {"item_id"})
    n = torch.tensor([6, 3])
    past = torch.arange(6) < n[:, None]
    batch = {"item_id": torch.randint(3, 20, (2, 6)) * past, "brand": torch.randint(3, 9, (2, 6)) * past}
    batch |= {"price": torch.rand(2, 6) * past, "age": torch.rand(2, 6) * past}
    loss = model(batch, training=True)["loss"]
    loss.backward()
    assert loss.isfinite()
    scores = model.eval()(batch)
    assert scores.shape == (2, 20)
    assert scores[:, 3:].isfinite().all()


def test_the_learning_rate_falls_to_nothing():
    recipe = recipes.find("rees46", "gpt2")
    model = torch.nn.Linear(2, 2)
    adam = recipes.optimizer(recipe, model, 4)
    rates = []
    for _ in range(4):
        rates.append(adam.param_groups[0]["lr"])
        model(torch.ones(1, 2)).sum().backward()
        adam.step()
    assert rates == pytest.approx([recipe.learning_rate * share for share in (1, 0.75, 0.5, 0.25)])
    assert adam.param_groups[0]["lr"] == 0
    assert [group["weight_decay"] for group in adam.param_groups] == [recipe.weight_decay, 0]


# The protocol


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Four days of YOOCHOOSE: events/ and features/."""
    folder = tmp_path_factory.mktemp("yoochoose")
    public_downloads.yoochoose(folder)
    prepare(folder, "yoochoose", folder / "events")
    run = load_run(ROOT / "examples" / "recsys2021" / "yoochoose.yaml", folder / "events")
    incremental.features_of_all(run, folder / "features")
    return folder


@pytest.fixture
def recipe():
    small = {"d_model": 32, "item_dim": 32, "batch_size": 16, "label_smoothing": 0, "swap_noise": 0}
    return recipes.find("yoochoose", "gpt2").model_copy(
        update=small | {"learning_rate": 0.01, "input_dropout": 0, "epochs": 5}
    )


def test_windows_are_those_of_the_download(shop):
    data = incremental.read_windows(shop / "features", "ids")
    day = {}
    for line in (shop / "yoochoose-clicks.dat").read_text().splitlines():
        session, at, _, _ = line.split(",")
        day.setdefault(session, int(at[8:10]))  # the first click's day of April
    ids = [
        key for split in ("train", "valid", "test") for key in read_session_ids(shop / "features", split).to_pylist()
    ]
    assert len(ids) == len(day) == len(data.sessions) == 240
    assert data.number.tolist() == [day[key.partition("/")[2]] for key in ids]
    for number in range(1, data.last + 1):
        halves = [data.half(number, half) for half in incremental.HALVES]
        assert sum(map(len, halves)) == len(data.train(number)) > 0
    # Every item is known, whatever the window that it first comes in.
    known = set(item_names(shop / "features"))
    assert known >= {str(214536500 + item) for item in range(public_downloads.ITEMS)}
    items = data.sessions.values["item_id"]
    owner = data.number.repeat_interleave(data.sessions.lengths)
    for item in items.unique().tolist():
        assert data.first[item] == owner[items == item].min()


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(shop, recipe, tmp_path):
    whole = incremental.run(shop / "features", recipe, tmp_path / "whole", windows=3)
    assert [row["train"] for row in whole["windows"]] == [1, 2, 3]
    assert [row["evaluated"] for row in whole["windows"]] == [2, 3, 4]
    # The next item on the circle, in nine of ten steps.
    assert whole["windows"][-1]["ndcg@20"] > 0.6
    mean = sum(row["ndcg@20"] for row in whole["windows"]) / 3
    assert whole["aot"]["ndcg@20"] == pytest.approx(mean)
    first = incremental.run(shop / "features", recipe, tmp_path / "parts", windows=1)
    assert first["aot"]["recall@10"] == first["windows"][0]["recall@10"]
    resumed = incremental.run(shop / "features", recipe, tmp_path / "parts", windows=3)
    for mine, theirs in zip(resumed["windows"], whole["windows"], strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}
    again = incremental.run(shop / "features", recipe, tmp_path / "parts", windows=3)
    assert again["windows"] == resumed["windows"], "nothing is trained anew"
    lines = (tmp_path / "parts" / "windows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == resumed["windows"]


def test_windows_go_on_with_the_same_weights(shop, recipe, tmp_path):
    still = recipe.model_copy(update={"learning_rate": 1e-30, "epochs": 1})
    incremental.run(shop / "features", still, tmp_path / "run", windows=2)
    data = incremental.read_windows(shop / "features", "ids")
    torch.manual_seed(0)
    expected = recipes.build(still, data.features, data.limit).state_dict()
    for name, value in Model.load(tmp_path / "run").state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_what_counts_knows_the_windows_so_far_and_no_more(shop):
    data = incremental.read_windows(shop / "features", "ids")
    item = data.features[0]
    expected = []
    for number in (1, 2):
        past = data.sessions.where(data.number <= number).values[item.name]
        popular = torch.bincount(past, minlength=item.cardinality)
        held_out = data.half(number + 1, "test")
        target = held_out.values[item.name][held_out.offsets[1:] - 1]
        # Of equal counts a target has the middle rank.
        more, same = ((popular[item.reserved :, None] - popular[target]).sign() == sign for sign in (1, 0))
        rank = 1 + more.sum(0) + (same.sum(0) - 1) / 2
        expected.append((rank <= 20).double().mean().item())
    found = counting.count(data, "popularity", [1, 2])
    assert found["recall@20"] == pytest.approx(sum(expected) / 2)
    # The circle is what rules find at once.
    assert counting.count(data, "sequential-rules", [3])["ndcg@20"] > 0.6
    with pytest.raises(UserError, match="--also apriori: must be of popularity"):
        counting.check(["apriori"])


def test_other_settings_begin_anew(shop, recipe, tmp_path):
    quick = recipe.model_copy(update={"epochs": 1})
    before = incremental.run(shop / "features", quick, tmp_path / "run", windows=1)
    after = incremental.run(shop / "features", quick, tmp_path / "run", windows=1, seed=1)
    assert before["windows"][0]["loss"] != after["windows"][0]["loss"]
    tuning = incremental.run(shop / "features", quick, tmp_path / "run", windows=1, half="valid")
    both = after["windows"][0]["sessions"] + tuning["windows"][0]["sessions"]
    assert both == len(incremental.read_windows(shop / "features", "ids").train(2))


@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        ("g1", ["--architecture", "gru", "--windows", "1", "--also", "stan"]),
        pytest.param("rees46", ["--side", "multiply"], marks=pytest.mark.slow),
        pytest.param("adressa", ["--side", "concat"], marks=pytest.mark.slow),
    ],
)
def test_the_program_prints_our_figures_beside_the_papers(dataset, options, tmp_path, monkeypatch, capsys):
    getattr(public_downloads, dataset)(tmp_path)
    arguments = ["recsys2021", dataset, "--data-root", str(tmp_path), "--output", str(tmp_path / "out"), *options]
    monkeypatch.setattr(sys, "argv", [*arguments, "--epochs", "2"])
    program.main()
    printed = capsys.readouterr().out
    assert "STAN" in printed
    assert f"{recipes.figures(dataset)[0]['ndcg@20']:.4f}" in printed
    monkeypatch.setattr(sys, "argv", [*arguments, "--epochs", "2", "--json"])
    program.main()
    result = json.loads(capsys.readouterr().out)
    assert result["rows"][-1] == {
        "algorithm": "ours",
        "recipe": result["recipe"],
        "ndcg@20": result["aot"]["ndcg@20"],
        "hr@20": result["aot"]["recall@20"],
    }
    assert math.isfinite(result["aot"]["mrr@20"])
    assert ("stan, counted here" in [row["algorithm"] for row in result["rows"]]) == ("--also" in options)
    (table,) = (tmp_path / "out" / dataset).glob("*.md")
    assert f"| > ours | {result['aot']['ndcg@20']:.4f} |" in table.read_text()
    monkeypatch.setattr(sys, "argv", [*arguments[:4], "--architecture", "reformer"])
    with pytest.raises(SystemExit, match=f"the paper has no reformer:mlm of {dataset}"):
        program.main()


# The challenges


@pytest.mark.slow
def test_the_products_of_the_sigir_challenge_have_their_vectors(tmp_path):
    public_downloads.coveo(tmp_path, 120)
    run = load_run(ROOT / "examples" / "sigir_ecom_2021.yaml", tmp_path)
    report = preprocess(run, tmp_path / "features")
    assert report["vectors"] == {name: {"width": 50, "items": 50, "missing": 10} for name in ("text", "image")}
    assert report["items"] == public_downloads.ITEMS
    matrix = load_file(tmp_path / "features" / "vectors" / "image.safetensors")["vectors"]
    lengths = matrix.norm(dim=1)
    assert ((lengths - 1).abs() < 1e-5).sum() == 50
    assert (lengths == 0).sum() == len(matrix) - 50
    (tmp_path / "sku_to_content.csv").write_text(
        "product_sku_hash,description_vector,category_hash,image_vector,price_bucket\n"
        f'{7001:064x},"[1, two]",a,"[1]",1.0\n'
    )
    with pytest.raises(UserError, match=r"'description_vector' holds '\[1, two\]': vectors are lists of numbers"):
        preprocess(run, tmp_path / "broken")


@pytest.mark.slow
def test_the_trips_of_the_webtour_challenge_are_whole(tmp_path):
    public_downloads.booking(tmp_path, 120)
    run = load_run(ROOT / "examples" / "wsdm_webtour_2021.yaml", tmp_path)
    report = preprocess(run, tmp_path / "features")
    assert report["sessions"] == 120
    for window in ("train", "valid", "test"):
        lists = pq.read_table(tmp_path / "features" / window).column("item_id").to_pylist()
        assert min(map(len, lists)) >= 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("yaml", "download", "more"),
    [
        ("sigir_ecom_2021", "coveo", []),
        ("sigir_ecom_2021", "coveo", ["model.architecture=transfo-xl", "model.masking=clm"]),
        ("wsdm_webtour_2021", "booking", []),
    ],
)
def test_a_challenge_runs_from_download_to_repository(yaml, download, more, tmp_path):
    getattr(public_downloads, download)(tmp_path)
    run = load_run(ROOT / "examples" / f"{yaml}.yaml", tmp_path, [*QUICK, *more])
    result = run_pipeline(run, tmp_path / "out")
    assert result["evaluate"]["sessions"] > 0
    assert (tmp_path / "out" / "model_repository").is_dir()
    four = evaluate(tmp_path / "out" / "model", tmp_path / "out" / "features", ks=(4,))["metrics"]["model"]
    assert 0 <= four["recall@4"] <= 1


@pytest.mark.slow
def test_prepared_events_go_through_nextitem_run_too(tmp_path):
    public_downloads.rees46(tmp_path)
    prepare(tmp_path, "rees46", tmp_path / "events")
    more = ["model.features=all", "model.label_smoothing=0.1"]
    run = load_run(ROOT / "examples" / "recsys2021" / "rees46.yaml", tmp_path / "events", [*QUICK, *more])
    assert run_pipeline(run, tmp_path / "out")["evaluate"]["sessions"] > 0
