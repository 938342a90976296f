"""A repository that changes: whole after every kill, and only with versions that are there."""

import json

import pytest
import tritonclient.grpc.model_config_pb2 as triton
from google.protobuf import text_format

from common.artefacts import new_folder, read_manifest
from common.errors import UserError
from serving.repository import change, check_shares, current_shares, read_config, recover, versions

from .cut_off import cut_off

KIND = ("model_repository", "nextitem export")


def version(folder, number):
    (folder / str(number)).mkdir(parents=True)
    (folder / str(number) / "serving.json").write_text(json.dumps({"number": number}))
    return folder / str(number)


@pytest.fixture
def repository(tmp_path):
    with new_folder(tmp_path / "repository", KIND[0], {}) as folder:
        version(folder.path / "nextitem", 1)
        config = triton.ModelConfig(name="nextitem", backend="python")
        config.version_policy.specific.versions.append(1)
        (folder.path / "nextitem" / "config.pbtxt").write_text(text_format.MessageToString(config))
    return tmp_path / "repository"


def state(repository):
    return versions(repository), current_shares(read_config(repository))


def test_a_version_is_added_shares_the_sessions_and_takes_them_all(repository, tmp_path):
    assert state(repository) == ([1], {1: 1.0})
    change(repository, {1: 0.9, 2: 0.1}, version(tmp_path / "staged", 2))
    read_manifest(repository, *KIND)
    assert state(repository) == ([1, 2], {1: 0.9, 2: 0.1})
    # The newest answers, and hands the other its share.
    assert list(read_config(repository).version_policy.specific.versions) == [2]
    change(repository, {2: 1.0}, remove=(1,))
    assert state(repository) == ([2], {2: 1.0})
    manifest = read_manifest(repository, *KIND)
    assert manifest["report"]["history"] == [{"1": 0.9, "2": 0.1}, {"2": 1.0}]
    assert manifest["report"]["deployment"] == 2


@pytest.mark.parametrize("after", range(4))
def test_cut_off_anywhere_it_is_the_old_one_or_the_new_one(repository, tmp_path, monkeypatch, after):
    """A change is four renames; the process ends after so many of them."""
    cut_off(monkeypatch, after, lambda: change(repository, {2: 1.0}, version(tmp_path / "staged", 2)))
    recover(repository)
    old, new = ([1], {1: 1.0}), ([1, 2], {2: 1.0})
    assert state(repository) == (new if after == 3 else old)
    read_manifest(repository, *KIND)
    assert not (repository / ".manifest.next").exists()


def test_what_was_altered_is_refused(repository):
    (repository / "nextitem" / "1" / "serving.json").write_text("{}")
    with pytest.raises(UserError, match="was changed after it was written"):
        recover(repository)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({3: 1.0}, "there is no version 3: 1, 2 are there"),
        ({1: 0.5, 2: 0.4}, "must be above 0 and add up to 1"),
        ({1: 0.0, 2: 1.0}, "must be above 0 and add up to 1"),
        ({1: 1.5, 2: -0.5}, "must be above 0 and add up to 1"),
    ],
)
def test_shares_that_cannot_be(shares, message):
    with pytest.raises(UserError, match=message):
        check_shares(shares, [1, 2])
