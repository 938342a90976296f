"""`nextitem export --backend pytorch`, on a real tritonserver whose backend `pytorch` is a stand-in (see there)."""

import json
import shutil
import threading

import numpy as np
import pytest
import torch
import tritonclient.grpc as grpc

import nextitem
import serving.deploy
from common.artefacts import read_manifest, sha256
from common.errors import UserError
from serving import RANKER
from serving.client import PROTOCOLS, NextItemClient
from serving.columns import convert_events
from serving.export import export
from serving.libtorch import write_ranker
from serving.repository import read_config
from serving.runtime.engine import Engine
from serving.runtime.remote import PlainRanker, ask_module
from serving.server import TritonServer
from serving.settings import ServingSettings
from tests.end_to_end.libtorch_backend import FAILS_AT, backends

DTYPES = {"TYPE_INT64": torch.int64, "TYPE_FP32": torch.float32}


@pytest.fixture(scope="module")
def repository(shop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pytorch") / "model_repository"
    assert nextitem.export(shop / "features", shop / "model", folder, backend="pytorch")["backend"] == "pytorch"
    return folder


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    return backends(tmp_path_factory.mktemp("backends"))


@pytest.fixture(scope="module")
def two(repository, backend):
    """A server on the two models."""
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0, arguments=[backend]) as running:
        yield running


def same(answer, wanted):
    assert answer.session_id == wanted.session_id
    np.testing.assert_allclose(answer.score, wanted.score, rtol=1e-4, atol=1e-5)
    assert answer.unknown_events.tolist() == wanted.unknown_events.tolist()
    for items, expected, scores in zip(answer.item_id, wanted.item_id, wanted.score, strict=True):
        differing = [i for i, (a, b) in enumerate(zip(items, expected, strict=True)) if a != b]
        assert not differing or np.ptp(scores[differing]) < 1e-4


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_models_answer_what_one_process_answers(two, server, sample, protocol):
    items = sorted(set(sample["item_id"]))
    with (
        NextItemClient(two.addresses[protocol], protocol) as ours,
        NextItemClient(server.addresses[protocol], protocol) as theirs,
    ):
        for options in (
            {},
            {"top_k": 1},
            {"exclude_seen": True},
            {"excluded": items[:30]},
            {"candidates": items[5:9]},
            {"candidates": ["no such item"]},
            {"excluded": ["no such item"], "top_k": 7},
            {"top_k": 4, "exclude_seen": True, "excluded": items[:2], "candidates": items[:50]},
        ):
            same(ours.recommend(sample, **options), theirs.recommend(sample, **options))
        nothing = ours.recommend(sample, candidates=["no such item"])
        assert not any(items for row in nothing.item_id for items in row)


def test_sessions_of_many_clients_stay_apart(two, sample):
    sessions = np.array(sample["session_id"])
    with NextItemClient(two.addresses["grpc"]) as client:
        whole = client.recommend(sample)
    wrong = []

    def ask(number):
        with NextItemClient(two.addresses["grpc"]) as client:
            for place in range(number, len(whole), 8):
                rows = np.flatnonzero(sessions == whole.session_id[place])
                top_k = 1 + place % 9
                answer = client.recommend({n: [v[row] for row in rows] for n, v in sample.items()}, top_k=top_k)
                close = np.allclose(answer.score[0], whole.score[place, :top_k], rtol=1e-4, atol=1e-5)
                if answer.session_id != [whole.session_id[place]] or not close:
                    wrong.append(place)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_error_of_the_model_is_one_line_and_costs_nobody_else_an_answer(two, sample):
    with NextItemClient(two.addresses["grpc"]) as client:
        with pytest.raises(UserError, match="could not answer this request; its log says why") as caught:
            client.recommend(sample, top_k=FAILS_AT)
        assert "\n" not in str(caught.value)
        assert "fire" not in str(caught.value)
        assert len(client.recommend(sample, top_k=FAILS_AT - 1).item_id[0]) == FAILS_AT - 1
    assert f"model '{RANKER}', version 1: PyTorch execute failure: the machine" in two.log_text()


def test_the_configuration_says_what_the_module_takes_and_gives(repository):
    config = read_config(repository, RANKER)
    assert (config.backend, config.platform, config.max_batch_size) == ("pytorch", "pytorch_libtorch", 0)
    assert config.version_policy.WhichOneof("policy_choice") == "all"
    assert {group.kind for group in config.instance_group} == {grpc.model_config_pb2.ModelInstanceGroup.KIND_CPU}
    assert config.parameters["INTRA_OP_THREAD_COUNT"].string_value == "1"
    module = torch.jit.load(str(repository / RANKER / "1" / "model.pt"))
    # The backend's rule for names: all inputs in one dictionary.
    (_, argument) = module.forward.schema.arguments
    assert str(argument.type) == "Dict[str, Tensor]"
    kind = grpc.model_config_pb2.DataType.Name
    made = {}
    for part in config.input:
        made[part.name] = torch.zeros([max(1, size) for size in part.dims], dtype=DTYPES[kind(part.data_type)])
    found = module(made | {"top_k": torch.tensor([3])})
    assert [output.name for output in config.output] == ["scores__0", "ids__1"]
    for output, tensor in zip(config.output, found, strict=True):
        assert DTYPES[kind(output.data_type)] == tensor.dtype
        assert tensor.shape == (1, 3)
    # Nothing is there for show: without any one of them it does not answer.
    for name in made:
        with pytest.raises(RuntimeError):
            module({other: tensor for other, tensor in made.items() if other != name})
    for warm in config.model_warmup:
        sample = {}
        for name, given in warm.inputs.items():
            content = bytearray((repository / RANKER / "warmup" / given.input_data_file).read_bytes())
            sample[name] = torch.frombuffer(content, dtype=DTYPES[kind(given.data_type)]).reshape(*given.dims)
        assert module(sample)[1].shape[0] == len(sample["item_id"])
    assert [len(warm.inputs) for warm in config.model_warmup] == [len(config.input)] * 2


def test_without_triton_the_module_gives_what_the_model_gives(shop, repository, sample):
    one = Engine(shop / "model_repository" / "nextitem" / "1", device="cpu")
    weights = repository / RANKER / "1" / "model.pt"
    two = Engine(repository / "nextitem" / "1", ranker=PlainRanker(ask_module(weights)))
    raw = convert_events(sample, {column.name: column.type for column in one.program.columns})
    for options in ({}, {"exclude_seen": np.array([True]), "top_k": np.array([5])}):
        (wanted,), (found,) = (e.answer([e.read(raw | options)]) for e in (one, two))
        assert found["item_id"].tolist() == wanted["item_id"].tolist()
        np.testing.assert_allclose(found["score"], wanted["score"], rtol=1e-5)


def broken(features, model, output, settings, version, **options):
    """Export a model that nothing can load, whatever its checksum says."""
    export(features, model, output, settings, version, **options)
    weights = output / RANKER / str(version) / "model.pt"
    weights.write_bytes(b"no model")
    checksums = output / "nextitem" / str(version) / "checksums.json"
    names = json.loads(checksums.read_text())
    names[f"../../{RANKER}/{version}/model.pt"] = sha256(weights)
    checksums.write_text(json.dumps(names))


@pytest.mark.slow
def test_a_version_is_deployed_shares_and_rolls_back_with_its_model(
    shop, repository, backend, sample, tmp_path, monkeypatch
):
    config = tmp_path / "other.yaml"
    config.write_text(
        "name: other\nevents: {files: x, session: session_id, item: item_id, time: time}\n"
        "model: {epochs: 1, d_model: 16, seed: 5, threads: 1}\n"
    )
    nextitem.train(shop / "features", tmp_path / "other", config)
    shutil.copytree(repository, tmp_path / "repository")
    repository = tmp_path / "repository"
    asked, failed, end = [], [], threading.Event()

    def ask(address):
        with NextItemClient(address) as client:
            while not end.wait(0.02):
                try:
                    asked.append(client.recommend({name: values[:1] for name, values in sample.items()}))
                except UserError as error:
                    failed.append(str(error))

    with (
        TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0, watch=True, arguments=[backend]) as server,
        NextItemClient(server.addresses["grpc"]) as client,
    ):
        load = threading.Thread(target=ask, args=(server.addresses["grpc"],))
        load.start()
        try:
            url = server.addresses["http"]
            old = client.recommend(sample)
            deployed = nextitem.deploy(shop / "features", tmp_path / "other", repository, share=0.5, url=url)
            assert deployed == {"version": 2, "shares": {"1": 0.5, "2": 0.5}, "live": True}
            mixed = client.recommend(sample)
            nextitem.route(["2"], repository, url)
            new = client.recommend(sample)
            nextitem.rollback(repository, url)
            same(client.recommend(sample), old)

            # What the server cannot load is taken back whole, and its number is not given again.
            with monkeypatch.context() as patch:
                patch.setattr(serving.deploy, "export", broken)
                with pytest.raises(UserError, match=r"could not load version 3: .*; nextitem stays as it was"):
                    nextitem.deploy(shop / "features", tmp_path / "other", repository, url=url)
            same(client.recommend(sample), old)
            third = nextitem.deploy(shop / "features", tmp_path / "other", repository, url=url)
            assert third == {"version": 4, "shares": {"4": 1.0}, "live": True}
            same(client.recommend(sample), new)
        finally:
            end.set()
            load.join()
    kept = np.isclose(mixed.score, old.score, rtol=1e-4, atol=1e-5).all(axis=1)
    assert 0.3 < kept.mean() < 0.7
    np.testing.assert_allclose(mixed.score[~kept], new.score[~kept], rtol=1e-4, atol=1e-5)
    assert failed == []
    assert len(asked) > 50
    read_manifest(repository, "model_repository", "nextitem export")
    assert sorted(path.name for path in (repository / RANKER).iterdir()) == ["1", "4", "config.pbtxt", "warmup"]


def test_what_does_not_go_together_is_refused(shop, repository, tmp_path):
    folders = [shop / "features", shop / "model", tmp_path / "refused"]
    config = tmp_path / "cuda.yaml"
    config.write_text(
        "name: x\nevents: {files: x, session: session_id, item: item_id, time: time}\nserving: {device: cuda}\n"
    )
    for options, message in (
        ({"backend": "onnx"}, "--backend onnx is not known: choose python or pytorch"),
        ({"backend": "pytorch", "variant": "stock"}, "does not go with --variant stock"),
        ({"backend": "pytorch", "config": config}, "set serving.device to cpu"),
    ):
        with pytest.raises(UserError, match=message):
            nextitem.export(*folders, **options)
    assert not folders[2].exists()
    # The model of another time does not know the lists of items.
    (tmp_path / "old").mkdir()
    torch.jit.script(Old()).save(str(tmp_path / "old" / "model.pt"))
    program = Engine(shop / "model_repository" / "nextitem" / "1", device="cpu").program
    with pytest.raises(UserError, match="run 'nextitem train' again"):
        write_ranker(tmp_path / "old" / "model.pt", program, ServingSettings(), tmp_path / "written", 1)


class Old(torch.nn.Module):
    def forward(self, inputs: dict[str, torch.Tensor], k: int) -> torch.Tensor:
        return inputs["item_id"]


def test_weights_that_were_changed_are_not_served(repository, tmp_path):
    shutil.copytree(repository, tmp_path / "repository")
    weights = tmp_path / "repository" / RANKER / "1" / "model.pt"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"nextitem_ranker/1/model\.pt was changed"):
        nextitem.serve(tmp_path / "repository")
    with pytest.raises(ValueError, match="is not what was exported"):
        Engine(tmp_path / "repository" / "nextitem" / "1", ranker=PlainRanker(ask_module(weights)))


def test_without_that_backend_serve_says_so_in_one_line(repository):
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    with pytest.raises(UserError, match="needs Triton's PyTorch backend, which is not here") as caught:
        nextitem.serve(repository, **ports)
    assert "export without --backend pytorch, or serve it in an NGC image" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_model_that_takes_other_features_is_refused(repository, tmp_path):
    shutil.copytree(repository, tmp_path / "repository")
    before = read_config(repository, RANKER)
    config = tmp_path / "repository" / RANKER / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "price"', 'name: "cost"', 1))
    with pytest.raises(UserError, match=r"the new one takes others \(cost, price\)"):
        serving.deploy._same_features(before, read_config(tmp_path / "repository", RANKER))
