"""Artefact folders are written whole or not at all, and altered ones are refused."""

import json

import pytest

from common.artefacts import MANIFEST, identity, new_folder, read_manifest, tidy
from common.errors import UserError


def write(target, text="one", **kwargs):
    with new_folder(target, "model", {"d_model": 8}, **kwargs) as folder:
        (folder.path / "sub").mkdir()
        (folder.path / "sub" / "weights").write_text(text)
        folder.report["loss"] = 0.5


def test_folder_holds_settings_report_and_hashes(tmp_path):
    write(tmp_path / "model", inputs={"features": "abc"})
    manifest = read_manifest(tmp_path / "model", "model", "nextitem train")
    assert manifest["settings"] == {"d_model": 8}
    assert manifest["report"] == {"loss": 0.5}
    assert manifest["inputs"] == {"features": "abc"}
    # sha256 of b"one", from coreutils' sha256sum
    expected = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert manifest["files"] == {"sub/weights": {"sha256": expected, "bytes": 3}}


def test_error_leaves_the_old_folder_and_nothing_else(tmp_path):
    target = tmp_path / "model"
    write(target)
    before = identity(target)

    def interrupted():
        with new_folder(target, "model", {}) as folder:
            (folder.path / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert identity(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    read_manifest(target, "model", "nextitem train")


def test_replacing_leaves_no_old_file(tmp_path):
    write(tmp_path / "model")
    with new_folder(tmp_path / "model", "model", {}) as folder:
        (folder.path / "other").write_text("x")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [MANIFEST, "other"]


def test_cut_off_between_the_two_renames_is_undone(tmp_path):
    write(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / ".model.previous")
    assert read_manifest(tmp_path / "model", "model", "nextitem train")["kind"] == "model"


def test_leftovers_of_a_dead_process_are_removed(tmp_path):
    leftover = tmp_path / ".model.partial-999999999"
    leftover.mkdir()
    write(tmp_path / "model")
    assert not leftover.exists()


@pytest.mark.parametrize("what", ["changed", "missing", "added", "manifest"])
def test_altered_folder_is_refused(tmp_path, what):
    target = tmp_path / "model"
    write(target)
    if what == "changed":
        (target / "sub" / "weights").write_text("two")
    elif what == "missing":
        (target / "sub" / "weights").unlink()
    elif what == "added":
        (target / "evil.pkl").write_text("x")
    else:
        (target / MANIFEST).write_text("{")
    with pytest.raises(UserError, match="make the folder anew"):
        read_manifest(target, "model", "nextitem train")


def test_days_of_features_are_no_part_of_them(tmp_path):
    """They come and go, and may be half written; anything else that is not listed is refused, also in a model."""
    for kind in ("features", "model"):
        with new_folder(tmp_path / kind, kind, {}) as folder:
            (folder.path / "data").write_text("x")
        for place in ("days/2024-01-01", "days/.2024-01-02.partial-7"):
            (tmp_path / kind / place).mkdir(parents=True)
            (tmp_path / kind / place / "half").write_text("x")
    read_manifest(tmp_path / "features", "features", "nextitem preprocess")
    with pytest.raises(UserError, match=r"days/.*is not in manifest\.json"):
        read_manifest(tmp_path / "model", "model", "nextitem train")
    (tmp_path / "features" / "sub" / "days").mkdir(parents=True)
    (tmp_path / "features" / "sub" / "days" / "evil.pkl").write_text("x")
    with pytest.raises(UserError, match=r"evil\.pkl is not in manifest\.json"):
        read_manifest(tmp_path / "features", "features", "nextitem preprocess")


def test_tidying_undoes_and_removes_what_killed_processes_left(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name, text=name)
    (tmp_path / "one").rename(tmp_path / ".one.previous")
    for name in (".two.previous", ".three.partial-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("x")
    tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    read_manifest(tmp_path / "one", "model", "nextitem train")
    tidy(tmp_path / "nowhere")


def test_other_kind_and_absent_folder_say_which_command_makes_one(tmp_path):
    write(tmp_path / "model")
    with pytest.raises(UserError, match="run 'nextitem preprocess' first"):
        read_manifest(tmp_path / "model", "features", "nextitem preprocess")
    with pytest.raises(UserError, match="run 'nextitem train' first"):
        read_manifest(tmp_path / "nowhere", "model", "nextitem train")


def test_a_folder_of_the_user_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("meow")
    with pytest.raises(UserError, match="not a model folder"):
        write(tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.png").read_text() == "meow"


def test_kept_file_is_carried_over_and_not_verified(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "README.md").write_text("hello")
    write(target, keep=("README.md",))
    write(target, text="again", keep=("README.md",))
    assert (target / "README.md").read_text() == "hello"
    assert "README.md" not in json.loads((target / MANIFEST).read_text())["files"]
    read_manifest(target, "model", "nextitem train")
