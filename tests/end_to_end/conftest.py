"""One small shop, taken the whole way once: events, features, model, repository, a live tritonserver."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import nextitem
from preprocessing.shop import ShopSettings, write_events
from serving.client import PROTOCOLS, NextItemClient
from serving.events import read_events
from serving.server import TritonServer

ROOT = Path(__file__).parents[2]
QUICK = ["model.epochs=2", "model.d_model=32", "model.threads=1", "serving.max_batch_size=64"]


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """Folder with events.parquet, features/, model/ and model_repository/ of a simulated shop."""
    folder = tmp_path_factory.mktemp("shop")
    write_events(ShopSettings(sessions=5_000, items=200, categories=8), folder / "events.parquet")
    yaml = ROOT / "examples" / "simulated_shop.yaml"
    result = nextitem.run(yaml, output=folder, data_root=folder, settings=QUICK)
    assert result["evaluate"]["sessions"] > 100
    return folder


@pytest.fixture(scope="session")
def server(shop):
    with TritonServer(shop / "model_repository", http_port=0, grpc_port=0, metrics_port=0) as running:
        yield running


@pytest.fixture(scope="session")
def sample(shop):
    """Raw events of some hundred held-out sessions, as a client has them."""
    return read_events(shop / "features" / "sample.parquet")


@pytest.fixture(scope="session")
def events(shop):
    return pq.read_table(shop / "events.parquet")


@pytest.fixture(params=PROTOCOLS)
def client(request, server):
    with NextItemClient(server.addresses[request.param], request.param) as connected:
        yield connected
