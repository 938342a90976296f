"""The commands as a person types them: results on standard output, one line of error, honest exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import nextitem
from common.artefacts import identity, read_manifest
from common.errors import UserError

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "nextitem"
COMMANDS = (
    "demo", "run", "preprocess", "train", "search", "evaluate", "export", "deploy", "route", "rollback", "serve",
    "recommend", "health", "loadtest", "playground",
)  # fmt: skip


def run(*arguments, **options):
    environment = os.environ | {"COLUMNS": "160"} | options.pop("env", {})
    command = [str(COMMAND), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, **options)


def failure(*arguments, **options):
    """The one line that a mistake gets."""
    done = run(*arguments, **options)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_help_lists_every_command_and_each_explains_itself():
    listed = run("--help").stdout
    for name in COMMANDS:
        assert f"  {name} " in listed
        described = run(name, "--help").stdout
        assert "Usage: nextitem" in described
        assert "--json" in described


def test_commands_are_typed_functions():
    for name in COMMANDS:
        function = getattr(nextitem, name)
        assert function.__annotations__["return"] == "dict[str, Any]"
        assert function.__doc__


def test_stages_one_by_one_give_what_run_gives(shop, tmp_path):
    """Each stage reads one folder and writes one; rerunning one of them needs no other."""
    yaml = ROOT / "examples" / "simulated_shop.yaml"
    done = run("preprocess", yaml, "--data-root", shop, "--output", tmp_path / "features", "--json")
    assert json.loads(done.stdout)["sessions"] > 1000, done.stderr
    config = ["--config", yaml, "--set", "model.epochs=1", "--set", "model.d_model=16"]
    train = run("train", "--features", tmp_path / "features", "--output", tmp_path / "model", *config, "--json")
    assert json.loads(train.stdout)["epochs"] == 1, train.stderr
    folders = ["--features", tmp_path / "features", "--model", tmp_path / "model"]
    evaluated = json.loads(run("evaluate", *folders, "--cutoffs", "20, 1,10", "--json").stdout)
    assert set(evaluated["metrics"]) == {"model", "popularity", "cooccurrence"}
    model = evaluated["metrics"]["model"]
    assert {f"{name}@{k}" for name in ("ndcg", "recall", "mrr") for k in (1, 10, 20)} <= set(model)
    assert model["recall@1"] == model["mrr@1"] <= model["recall@10"] <= model["recall@20"]
    exported = run("export", *folders, "--output", tmp_path / "repository", "--json")
    assert json.loads(exported.stdout)["ensemble"] == "nextitem", exported.stderr


@pytest.mark.slow
def test_search_then_train_with_what_it_found(shop, tmp_path):
    config = tmp_path / "shop.yaml"
    config.write_text(
        "model: {d_model: 16, n_layer: 1, epochs: 1, threads: 1, dropout: 0}\n"
        "search: {learning_rate: {low: 0.001, high: 0.01, log: true}, batch_size: [64, 256]}\n"
    )
    features = ["--features", shop / "features"]
    done = run("search", *features, "--config", config, "--trials", 2, "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["trials"] == {"complete": 2, "pruned": 0, "failed": 0}, done.stderr
    assert "Trial 2 of 2: " in done.stderr
    assert "Epoch" not in done.stderr
    best, threads = tmp_path / "search" / "best.yaml", ["model.threads=1"]
    trained = nextitem.train(shop / "features", tmp_path / "model", best, threads, seed=3)
    assert trained["valid"]["ndcg@20"] > 0
    given = read_manifest(tmp_path / "model", "model", "nextitem train")["settings"]
    assert given == given | found["best"]["settings"] | {"seed": 3, "d_model": 16, "dropout": 0}
    with pytest.raises(UserError, match=r"differ in settings: .*d_model, "):
        nextitem.evaluate([shop / "model", tmp_path / "model"], shop / "features")


def test_append_days_then_train_on_one_and_evaluate_on_the_next(shop, events, tmp_path):
    """The shop's first two days once more, sixty days later; the served model stays the one of these features."""
    import shutil

    shutil.copytree(shop / "features", tmp_path / "features")
    before = identity(tmp_path / "features")
    moved = pc.add(events["time"], pa.scalar(60 * 86_400_000, pa.duration("ms")))
    events = events.set_column(events.column_names.index("time"), "time", moved)
    day = pc.strftime(moved, "%Y-%m-%d")
    names = sorted(pc.unique(day).to_pylist())[:2]
    for name in names:
        pq.write_table(events.filter(pc.equal(day, name)), tmp_path / f"{name}.parquet")
    yaml = ROOT / "examples" / "simulated_shop.yaml"
    done = run("preprocess", yaml, "--append", f"{names[0]}.parquet", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert names[0] in report["days"], done.stderr
    assert report["days"][names[0]]["drift"]["item_id"]["verdict"] == "stable"
    assert report["events_read"] == report["events"] + sum(report["events_dropped"].values())
    shown = run("preprocess", yaml, "--append", f"{names[1]}.parquet", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "Drift against the training window" in shown.stdout
    assert names[1] in shown.stdout
    assert identity(tmp_path / "features") == before

    folders = ["--features", tmp_path / "features", "--model", shop / "model"]
    assert nextitem.export(tmp_path / "features", shop / "model", tmp_path / "repository")["ensemble"] == "nextitem"
    quick = ["--config", yaml, "--set", "model.epochs=1", "--set", "model.d_model=16"]
    days = ["--window", names[0], "--valid-window", names[1]]
    trained = run("train", *quick, *days, "--json", cwd=tmp_path)
    assert json.loads(trained.stdout)["sessions"] == report["days"][names[0]]["sessions"], trained.stderr
    evaluated = json.loads(run("evaluate", *folders, "--window", f"{names[0]}..{names[1]}", "--json").stdout)
    assert evaluated["sessions"] > report["days"][names[0]]["sessions"]
    with pytest.raises(UserError, match="give --refit to replace them"):
        nextitem.preprocess(yaml, tmp_path / "features", shop)
    with pytest.raises(UserError, match="--replace goes with --append"):
        nextitem.preprocess(yaml, replace=True)


def test_recommend_from_file_and_from_standard_input(server, shop, sample):
    url = ["--url", server.addresses["grpc"]]
    answer = json.loads(run("recommend", shop / "features" / "sample.parquet", *url, "--top-k", 3, "--json").stdout)
    assert len(answer["item_id"]) == len(set(sample["session_id"]))
    assert len(answer["item_id"][0]) == 3
    lines = "\n".join(json.dumps({name: values[row] for name, values in sample.items()}) for row in range(4))
    http = ["--url", server.addresses["http"], "--protocol", "http"]
    done = run("recommend", "-", *http, input=lines)
    assert done.returncode == 0, done.stderr
    assert "sku-" in done.stdout
    assert str(sample["session_id"][0]) in done.stdout


def test_loadtest_measures_the_live_server(server, shop):
    done = run(
        "loadtest",
        "--events",
        shop / "features" / "sample.parquet",
        "--url",
        server.addresses["grpc"],
        "--concurrency",
        2,
        "--requests",
        100,
        "--json",
    )
    (row,) = json.loads(done.stdout)["rows"]
    assert row["concurrency"] == 2
    assert row["req_per_s"] > 0
    assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    assert row["errors"] == 0


def test_mistakes_get_one_line_and_exit_code_2(shop, tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: x\nevents: {files: a.csv, session: s, item: i, time: t}\nsplt: {}\n")
    assert "no key 'splt': did you mean 'split'" in failure("run", broken)
    broken.write_text("search: {dropuot: [0.1, 0.2]}\n")
    assert "no setting 'dropuot': did you mean 'dropout'" in failure("search", "--config", broken)
    assert "cannot be read" in failure("preprocess", tmp_path / "none.yaml")
    yaml = ROOT / "examples" / "simulated_shop.yaml"
    assert "no file matches 'events.parquet'" in failure("preprocess", yaml, "--data-root", tmp_path, cwd=tmp_path)
    assert "run 'nextitem preprocess' first" in failure("train", "--features", tmp_path / "none")
    assert "run 'nextitem train' first" in failure(
        "evaluate", "--features", shop / "features", "--model", tmp_path / "none"
    )
    with pytest.raises(UserError, match=r"--cutoffs 10,0: numbers must be above zero"):
        nextitem.evaluate([shop / "model"], shop / "features", cutoffs="10,0")
    assert "run 'nextitem export' first" in failure("serve", tmp_path / "none")
    assert "none.csv" in failure("recommend", tmp_path / "none.csv")
    assert "nextitem serve" in failure("recommend", shop / "features" / "sample.parquet", "--url", "127.0.0.1:9")


def test_a_port_that_is_taken_is_named(server, shop):
    port = server.addresses["http"].rpartition(":")[2]
    message = failure("serve", shop / "model_repository", "--http-port", port, "--grpc-port", 0, "--metrics-port", 0)
    assert port in message
    assert "--http-port" in message


def test_an_altered_repository_is_not_served(shop, tmp_path):
    import shutil

    copy = tmp_path / "repository"
    shutil.copytree(shop / "model_repository", copy)
    program = copy / "nextitem" / "1" / "program.json"
    program.write_text(program.read_text().replace('"max_length": 20', '"max_length": 19'))
    assert "SHA-256 differs" in failure("serve", copy)


def test_a_model_of_other_features_is_not_exported(shop, tmp_path):
    yaml = ROOT / "examples" / "simulated_shop.yaml"
    run("preprocess", yaml, "--data-root", shop, "--output", tmp_path / "features", "--set", "sessions.max_length=5")
    message = failure(
        "export", "--features", tmp_path / "features", "--model", shop / "model", "--output", tmp_path / "r"
    )
    assert "was trained on other features" in message
    assert not (tmp_path / "r").exists()


def test_an_interrupted_stage_leaves_the_previous_output(shop, tmp_path):
    import shutil
    import signal
    import time

    model = tmp_path / "model"
    shutil.copytree(shop / "model", model)
    before = identity(model)
    command = [COMMAND, "train", "--features", shop / "features", "--output", model]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".model.partial-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert identity(model) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_demo_on_a_small_shop(tmp_path):
    done = run("demo", "--output", tmp_path / "demo", "--sessions", 1500, "--items", 150, "--epochs", 2, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"events", "sessions", "metrics", "serving"} <= set(result)
    metrics = result["metrics"]
    assert set(metrics) == {"model", "optimum", "popularity", "cooccurrence"}
    assert max(metrics[name]["ndcg@20"] for name in ("popularity", "cooccurrence")) < metrics["optimum"]["ndcg@20"]
    assert {"req_per_s", "p50_ms", "p95_ms", "p99_ms"} <= set(result["serving"])
    assert result["serving"]["req_per_s"] > 0
    assert len(result["answers"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eshop_clothing_2008", "online_retail"])
def test_real_data_from_yaml_to_live_answers(name, tmp_path):
    """Briefly trained: that the real data goes the whole way, not how good the model gets."""
    from serving.client import NextItemClient
    from serving.events import read_events
    from serving.server import TritonServer

    data = ROOT.parent / "shared" / "data"
    if not (data / name).is_dir():
        pytest.skip(f"the real data is not here: {data / name}")
    settings = ["model.epochs=1", "model.d_model=16", "model.threads=1"]
    result = nextitem.run(ROOT / "examples" / f"{name}.yaml", output=tmp_path, data_root=data, settings=settings)
    assert (
        result["evaluate"]["metrics"]["cooccurrence"]["ndcg@20"]
        > result["evaluate"]["metrics"]["popularity"]["ndcg@20"]
    )
    columns = read_events(tmp_path / "features" / "sample.parquet")
    key = {"eshop_clothing_2008": "session ID", "online_retail": "InvoiceNo"}[name]
    with (
        TritonServer(tmp_path / "model_repository", http_port=0, grpc_port=0, metrics_port=0) as server,
        NextItemClient(server.addresses["grpc"]) as client,
    ):
        answer = client.recommend(columns)
    assert answer.session_id == list(dict.fromkeys(columns[key]))
    assert answer.score.shape == (len(answer), 20)
