"""A running server changes its version under load, and no request fails."""

import shutil
import threading
import time

import numpy as np
import pytest

import nextitem
from common.errors import UserError
from serving.client import NextItemClient
from serving.runtime.arms import choose
from serving.server import TritonServer


class Load:
    """Clients that ask all the time, one session a request."""

    def __init__(self, address, events):
        self.events, self.address = events, address
        self.answered, self.failed, self._stop = 0, [], threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def _ask(self):
        with NextItemClient(self.address) as client:
            while not self._stop.is_set():
                try:
                    client.recommend(self.events)
                    self.answered += 1
                except UserError as error:
                    self.failed.append(str(error))
                # The server that loads a version shares two cores with this.
                time.sleep(0.01)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def other(shop, tmp_path_factory):
    """Another model of the same features, which ranks otherwise."""
    folder = tmp_path_factory.mktemp("other") / "model"
    config = tmp_path_factory.mktemp("yaml") / "other.yaml"
    config.write_text(
        "name: other\nevents: {files: x, session: session_id, item: item_id, time: time}\n"
        "model: {epochs: 1, d_model: 16, seed: 5, threads: 1}\n"
    )
    nextitem.train(shop / "features", folder, config)
    return folder


def test_deploy_share_and_roll_back_under_load_without_a_failed_request(shop, other, sample, tmp_path):
    repository = tmp_path / "repository"
    shutil.copytree(shop / "model_repository", repository)
    one = {name: values[:1] for name, values in sample.items()}
    with (
        TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0, watch=True) as server,
        NextItemClient(server.addresses["grpc"]) as client,
        Load(server.addresses["grpc"], one) as load,
    ):
        url = server.addresses["http"]
        old = client.recommend(sample)

        shared = nextitem.deploy(shop / "features", other, repository, share=0.4, url=url)
        assert shared == {"version": 2, "shares": {"1": 0.6, "2": 0.4}, "live": True}
        mixed = client.recommend(sample)

        assert nextitem.route(["2"], repository, url)["live"]
        new = client.recommend(sample)
        arm = choose(np.array(old.session_id), np.array([0.6]))
        assert 0.3 < arm.mean() < 0.5
        assert mixed.session_id == new.session_id == old.session_id
        for position, number in enumerate(arm):
            expected = (old, new)[number]
            np.testing.assert_allclose(mixed.score[position], expected.score[position], rtol=1e-4, atol=1e-5)
            assert set(mixed.item_id[position]) == set(expected.item_id[position])
        assert not np.allclose(old.score, new.score)

        assert nextitem.rollback(repository, url) == {"shares": {"1": 1.0}, "live": True}
        np.testing.assert_allclose(client.recommend(sample).score, old.score, rtol=1e-4, atol=1e-5)

        # A version that the server cannot load changes nothing.
        config = tmp_path / "cuda.yaml"
        config.write_text(
            "name: x\nevents: {files: x, session: session_id, item: item_id, time: time}\nserving: {device: cuda}\n"
        )
        with pytest.raises(UserError, match=r"could not load version 3: .*; nextitem stays as it was"):
            nextitem.deploy(shop / "features", other, repository, config=config, url=url)
        assert client.ready()
        np.testing.assert_allclose(client.recommend(sample).score, old.score, rtol=1e-4, atol=1e-5)
    assert load.failed == []
    assert load.answered > 200


def test_a_model_that_wants_other_columns_is_refused(shop, tmp_path):
    repository = tmp_path / "repository"
    shutil.copytree(shop / "model_repository", repository)
    text = (repository / "nextitem" / "config.pbtxt").read_text()
    assert 'name: "price"' in text
    from serving.deploy import _same_face
    from serving.repository import read_config

    before = read_config(repository)
    (repository / "nextitem" / "config.pbtxt").write_text(text.replace('name: "price"', 'name: "cost"'))
    with pytest.raises(UserError, match=r"other columns than now \(cost, price\)"):
        _same_face(before, read_config(repository))
