"""The model as a Triton model of its own: what it takes, how it is asked, and how its versions come and go."""

import json

import numpy as np
import pytest
import torch
import tritonclient.grpc.model_config_pb2 as triton
from google.protobuf import text_format

import modeling as tr
from common.artefacts import new_folder, read_manifest
from modeling.export.plain import export_plain
from modeling.export.torchscript import export_torchscript
from modeling.schema import Feature
from modeling.synthetic import random_columns
from serving import MODEL, RANKER
from serving.repository import add_ranker, change, recover, remove_ranker, versions
from serving.runtime.remote import NO_LIST, PlainRanker, ask_module
from serving.triton_log import failure_reason

from .cut_off import cut_off

KIND = ("model_repository", "nextitem export")
PRICE = Feature("price", "continuous", None, 0, True)


@pytest.fixture(scope="module", params=[40, 60_000], ids=["few items", "many, in two stages"])
def files(request, tmp_path_factory):
    """A model as `model/` has it, and the same behind plain tensors."""
    torch.manual_seed(0)
    features = [Feature("item_id", "categorical", request.param, 3, True), PRICE]
    inputs = tr.TabularSequenceFeatures(features, 8, masking="clm", d_output=16, embedding_dim_default=16)
    config = tr.transformer_registry["gpt2"].build(16, 2, 1, 8)
    model = config.to_torch_model(inputs, tr.NextItemPredictionTask(weight_tying=True)).eval()
    folder = tmp_path_factory.mktemp("plain")
    export_torchscript(model, folder / "model.pt", "last")
    export_plain(folder / "model.pt", folder / "plain.pt", "top_k", "excluded", "candidates")
    return folder / "model.pt", folder / "plain.pt", random_columns(model.features, torch.tensor([5, 1, 7]), 3)


def test_numbers_and_lists_mean_the_same_as_tensors(files):
    original, plain = torch.jit.load(str(files[0])), PlainRanker(ask_module(files[1]))
    columns = files[2]
    excluded, candidates = torch.tensor([[4, 5, 0], [29, 29, 6], [0, 0, 0]]), torch.tensor([[4, 7, 8]] * 3)
    nothing = torch.zeros(3, 0, dtype=torch.long)
    for k in (1, 6):
        for lists in (
            (None, None),
            (excluded, None),
            (None, candidates),
            (excluded, candidates),
            (nothing, None),
            (None, nothing),
            (None, torch.zeros(3, 2, dtype=torch.long)),
        ):
            scores, ids = plain(columns, k, *lists)
            wanted, expected = original(columns, k, *lists)
            torch.testing.assert_close(scores, wanted)
            assert ids.tolist() == expected.tolist()


def test_lists_that_are_not_there_are_told_from_empty_ones():
    asked = []

    def ask(tensors):
        asked.append({name: values.tolist() for name, values in tensors.items()})
        return np.zeros((2, 3), np.float32), np.ones((2, 3), np.int64)

    features = {"item_id": torch.tensor([[7, 8], [9, 0]])}
    scores, ids = PlainRanker(ask)(features, 3, None, None)
    assert (scores.shape, ids.tolist()) == ((2, 3), [[1, 1, 1]] * 2)
    PlainRanker(ask)(features, 3, torch.tensor([[5], [0]]), torch.zeros(2, 0, dtype=torch.long))
    same = {"item_id": [[7, 8], [9, 0]], "top_k": [3]}
    assert asked[0] == same | {"excluded": [[0], [0]], "candidates": [[NO_LIST], [NO_LIST]]}
    assert asked[1] == same | {"excluded": [[5], [0]], "candidates": [[0], [0]]}


def version(folder, number):
    (folder / str(number)).mkdir(parents=True)
    (folder / str(number) / "model.pt").write_text(json.dumps({"of": folder.name, "number": number}))
    return folder / str(number)


@pytest.fixture
def repository(tmp_path):
    with new_folder(tmp_path / "repository", KIND[0], {}) as folder:
        for name in (MODEL, RANKER):
            version(folder.path / name, 1)
            config = triton.ModelConfig(name=name)
            config.version_policy.specific.versions.append(1)
            (folder.path / name / "config.pbtxt").write_text(text_format.MessageToString(config))
    return tmp_path / "repository"


def there(repository):
    return versions(repository, RANKER), versions(repository)


def test_the_model_comes_before_the_version_that_asks_it_and_both_go_together(repository, tmp_path):
    add_ranker(repository, version(tmp_path / "staged" / RANKER, 2))
    assert there(repository) == ([1, 2], [1])
    manifest = read_manifest(repository, *KIND)
    assert manifest["report"]["highest"] == 2
    change(repository, {2: 1.0}, version(tmp_path / "staged" / MODEL, 2), remove=(1,))
    assert there(repository) == ([2], [2])
    read_manifest(repository, *KIND)
    add_ranker(repository, version(tmp_path / "staged" / RANKER, 3))
    remove_ranker(repository, 3)
    assert there(repository) == ([2], [2])
    assert read_manifest(repository, *KIND)["report"]["highest"] == 3


@pytest.mark.parametrize("after", range(7))
def test_cut_off_anywhere_the_repository_is_whole(repository, tmp_path, monkeypatch, after):
    """Three renames bring the model in, four the version that asks it; the process ends after so many of them."""

    def deploy():
        add_ranker(repository, version(tmp_path / "staged" / RANKER, 2))
        change(repository, {2: 1.0}, version(tmp_path / "staged" / MODEL, 2))

    cut_off(monkeypatch, after, deploy)
    recover(repository)
    old, half, new = ([1], [1]), ([1, 2], [1]), ([1, 2], [1, 2])
    assert there(repository) == (old if after < 2 else half if after < 6 else new)
    read_manifest(repository, *KIND)
    assert not (repository / ".manifest.next").exists()


def test_a_server_without_the_backend_says_what_to_do():
    line = (
        "E1122 10:56:16.282884 745 model_lifecycle.cc:642] \"failed to load 'nextitem_ranker' version 1: Invalid "
        "argument: unable to find backend library for backend 'pytorch', try specifying runtime on the model "
        'configuration."'
    )
    reason = failure_reason(f"{line}\nerror: creating server: Internal - failed to load all models\n")
    assert reason is not None
    assert reason.startswith("this repository needs Triton's PyTorch backend")
    # Another backend that is missing is another matter.
    assert "unable to find" in (failure_reason(line.replace("'pytorch'", "'onnxruntime'")) or "")
