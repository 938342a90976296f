"""The same job on threads, on processes and on a Dask scheduler's workers; and what is said when there are none."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.artefacts import identity, read_manifest
from common.errors import UserError
from preprocessing import preprocess as stage
from preprocessing.cluster import Workers
from preprocessing.contract import agree
from preprocessing.preprocess import preprocess
from preprocessing.shuffle import Spill, arrange, spill

from .helpers import assert_same, content, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a Dask scheduler with two workers, in processes of their own that run in another folder."""
    folder = tmp_path_factory.mktemp("cluster")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = []

    def start(*command):
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    try:
        host, port = address.removeprefix("tcp://").split(":")
        start("dask_scheduler", "--host", host, "--port", port, "--no-dashboard", "--no-show")
        quiet = ("--nworkers", "2", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder))
        start("dask_worker", address, *quiet)
        import distributed

        with distributed.Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield address
    finally:
        # The workers first: they take their leave of the scheduler.
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def events(n=1200):
    rng = np.random.default_rng(7)
    moments = np.datetime64("2024-01-01") + np.sort(rng.integers(0, 40 * 1440, n)).astype("timedelta64[m]")
    return pa.table(
        {
            "visit": [None if x == 5 else f"v{x}" for x in rng.integers(0, 150, n)],
            "sku": (rng.zipf(1.5, n) % 40).tolist(),
            "at": [str(moment) for moment in moments],
            "brand": [None if x > 7 else f"b{x}" for x in rng.integers(0, 9, n)],
            "price": np.round(rng.gamma(2, 5, n), 2).tolist(),
        }
    )


SETTINGS = {
    "events": {"files": "*.parquet", "session": "visit", "item": "sku", "time": "at", "max_bad_share": 0.1},
    "features": {"item": {"categorical": ["brand"], "continuous": ["price"]}, "time": ["hour", "age"]},
    "split": {"valid": 0.2, "test": 0.2},
}


@pytest.fixture
def dataset(make, tmp_path):
    """Three files of events."""
    table = events()
    for number in range(3):
        pq.write_table(table.slice(number * 400, 400), tmp_path / f"part-{number}.parquet", row_group_size=150)
    made = make(table.slice(0, 0), name="nothing.parquet", **SETTINGS)
    return made


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What one thread makes of it."""
    from common.settings import validate
    from preprocessing.settings import Dataset

    folder = tmp_path_factory.mktemp("alone")
    pq.write_table(events(), folder / "events.parquet")
    described = validate({"name": "tiny", "data_root": str(folder)} | SETTINGS, Dataset, "tiny.yaml")
    out = folder / "features"
    return outcome(out, run(described, out, cluster="threads[1]"))


def outcome(out, report):
    counts = {name: report[name] for name in ("events_read", "events_dropped", "sessions", "items", "windows")}
    counts["catalogue"] = report["data"]["catalogue"]
    texts = [(out / name).read_text() for name in ("schema.pbtxt", "request.json")]
    bad = pq.read_table(out / "quarantine.parquet").select(["_reason", "at"]).sort_by("at").to_pylist()
    read_manifest(out, "features", "nextitem preprocess")
    return counts, texts, bad, content(out)


def assert_equal(found, expected):
    assert found[:3] == expected[:3]
    assert_same(found[3], expected[3])


@pytest.mark.parametrize("in_memory", [True, False])
def test_two_threads(dataset, expected, tmp_path, monkeypatch, in_memory):
    """Through memory, as small data goes, and through files, as large data does."""
    if not in_memory:
        monkeypatch.setattr(stage, "_IN_MEMORY", 0)
    out = tmp_path / "features"
    assert_equal(outcome(out, run(dataset, out, partition_events=300, cluster="threads[2]")), expected)


def test_two_processes(dataset, expected, tmp_path):
    out = tmp_path / "features"
    assert_equal(outcome(out, run(dataset, out, partition_events=300, cluster="local[2]")), expected)


def test_a_running_scheduler(dataset, expected, tmp_path, scheduler, monkeypatch):
    """Its workers run in another folder, so that relative paths must not reach them."""
    monkeypatch.chdir(tmp_path)
    relative = dataset.model_copy(update={"data_root": Path(".")})
    out = Path("features")
    assert_equal(outcome(out, run(relative, out, partition_events=300, cluster=scheduler)), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "features",
        "nothing.parquet",
        *(f"part-{number}.parquet" for number in range(3)),
    ]


def test_a_mistake_in_the_data_is_told_as_on_threads(make, tmp_path, scheduler):
    broken = make(events().slice(0, 50), name="a.parquet", **SETTINGS)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[4:200] = b"\x00" * 196
    (tmp_path / "a.parquet").write_bytes(content)
    for number in range(6):
        pq.write_table(events(), tmp_path / f"b-{number}.parquet")
    messages = []
    for cluster in ("threads[2]", scheduler):
        with pytest.raises(UserError) as caught:
            preprocess(broken, tmp_path / "features", cluster=cluster)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "a.parquet is damaged" in messages[0]
    # Nothing is left, and no task goes on to write.
    time.sleep(0.5)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".parquet"]


def killed_once(path):
    """Kill this worker process the first time that the task is done, and answer the second time."""
    mark = Path(path)
    if not mark.exists():
        mark.write_text("killed")
        os.kill(os.getpid(), signal.SIGKILL)
    return mark.read_text()


def killed_always(_):
    os.kill(os.getpid(), signal.SIGKILL)


def kill(mark):
    with Workers("local[1]") as workers:
        assert workers.map(killed_once, [mark]) == ["killed"]
        workers.map(killed_always, [1])


def test_a_task_whose_worker_is_killed(tmp_path):
    """It is done again by another worker; what kills every worker ends in one line."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), pytest.raises(UserError) as caught:
        kill(str(tmp_path / "mark"))
    assert str(caught.value).startswith("--cluster local[1]: workers or the scheduler were lost (")
    assert "\n" not in str(caught.value)


def test_a_task_done_twice_loses_nothing(dataset, tmp_path):
    """As when a worker is lost before its answer was read."""
    contract = agree(dataset, sorted(tmp_path.glob("*.parquet")), 150)
    job = Spill(dataset, contract, tmp_path / "scratch", 4)
    chunks = list(enumerate(contract.chunks))
    once = [spill(job, *chunk) for chunk in chunks]
    assert [spill(job, *chunk) for chunk in reversed(chunks)] == once[::-1]
    found = [arrange(job, number) for number in range(4)]
    tables = [partition.table() for partition in found]
    again = [arrange(job, number) for number in range(4)]
    assert [part.sessions for part in again] == [part.sessions for part in found]
    assert [part.dropped for part in again] == [part.dropped for part in found]
    assert [part.statistics.to_json() for part in again] == [part.statistics.to_json() for part in found]
    assert all(part.table().equals(table) for part, table in zip(again, tables, strict=True))
    bad = sum(result.bad.total() for result in once)
    assert sum(part.events + part.dropped.total() for part in found) + bad == 1200
    # No spilled event is left, and nothing unfinished.
    names = {path.name.split("-")[0] for path in job.folder.iterdir()}
    assert names == {"sessions", "starts", "offsets", "arranged", "bad"}


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.3, 1.2])
def test_a_worker_that_is_killed_during_the_job(make, tmp_path, scheduler, expected, moment):
    """The job ends right, or with one line and the previous output as it was."""
    import distributed

    out = tmp_path / "features"
    table = events()
    for number in range(3):
        pq.write_table(table.slice(number * 400, 400), tmp_path / f"part-{number}.parquet")
    dataset = make(table.slice(0, 0), name="nothing.parquet", **SETTINGS)
    preprocess(dataset, out, cluster="threads[1]")
    identified = identity(out)
    with distributed.Client(scheduler, timeout=20, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        victim = next(iter(client.run(os.getpid).values()))
    killer = threading.Timer(moment, os.kill, (victim, signal.SIGKILL))
    killer.start()
    message, report = "", None
    try:
        report = run(dataset, out, partition_events=100, cluster=scheduler)
    except UserError as error:
        message = str(error)
    finally:
        killer.join()
    if report is not None:
        assert_equal(outcome(out, report), expected)
    else:
        assert message.startswith(f"--cluster {scheduler}: ")
        assert "\n" not in message
        assert identity(out) == identified
        read_manifest(out, "features", "nextitem preprocess")
    assert not list(tmp_path.glob(".features*"))


@pytest.mark.parametrize(
    "cluster",
    ["threads", "threads[0]", "threads[]", "threads[-1]", "threads[1.5]", "local", "local[0]", "local[00]", "cuda[2]",
     "tcp", "tcp:", "tcp://", "http://localhost:8786", "localhost:8786", "Local[2]", " local[2]", "cuda "],
)  # fmt: skip
def test_what_is_no_cluster(make, tmp_path, cluster):
    with pytest.raises(UserError) as caught:
        preprocess(make(), tmp_path / "features", cluster=cluster)
    expected = f"--cluster {cluster}: write threads[N], local[N], tcp://host:port of a Dask scheduler, or cuda"
    assert str(caught.value) == " ".join(expected.split())
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "tcp://localhost", "tcp://127.0.0.1:port", "tls://127.0.0.1:1"]
)
def test_a_scheduler_that_is_not_there(make, tmp_path, address):
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        preprocess(make(), tmp_path / "features", cluster=address)
    assert time.monotonic() - began < 15
    assert str(caught.value).startswith(f"--cluster {address}: no Dask scheduler answers there (")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://localhost", "tcp://127.0.0.1:port"])
def test_nothing_stays_of_a_client_that_found_no_scheduler(address):
    with pytest.raises(UserError) as caught, Workers(address):
        pass
    # What the error still holds must have been closed, or the garbage collector would have to close it.
    clients = [c for c in gc.get_objects() if type(c) is distributed.Client]
    assert clients
    assert {c.status for c in clients} == {"closed"}, caught.value


def test_no_gpu(make, tmp_path):
    try:
        import cudf  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"--cluster cuda: no usable GPU here .* install nextitem"):
            preprocess(make(), tmp_path / "features", cluster="cuda")
    else:
        pytest.skip("there is a GPU here: see test_gpu")


@pytest.mark.parametrize("cluster", ["threads[1]", "threads[3]"])
def test_results_come_in_the_order_of_the_items(cluster):
    told = []
    with Workers(cluster) as workers:
        assert workers.map(lambda x: x * x, range(50), told.append) == [x * x for x in range(50)]
        assert workers.map(lambda x: x, []) == []
    assert sorted(told) == [x * x for x in range(50)]


def failing(x):
    if x == 3:
        raise UserError(f"item {x} is broken")
    return x


def test_the_first_error_ends_the_work(scheduler):
    for cluster in ("threads[2]", scheduler):
        with Workers(cluster) as workers:
            with pytest.raises(UserError, match="item 3 is broken"):
                workers.map(failing, range(100))
            # The workers go on with the next work.
            assert workers.map(failing, [7, 8]) == [7, 8]
