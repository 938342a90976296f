"""Training on one day and evaluating on the next: which sessions each of them sees."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import modeling as tr
from common.artefacts import identity, new_folder, read_manifest
from common.errors import UserError
from modeling.data import read_sessions
from modeling.schema import Feature

QUICK = {"d_model": 8, "n_head": 1, "n_layer": 1, "epochs": 1, "threads": 1, "device": "cpu", "features": "ids"}
ITEM = Feature("item_id", "categorical", 8, 3, True)
# 1 January knows 3 -> 4 only, 2 January 5 -> 6 only; the training window knows 3 -> 7 only.
WINDOWS = {"train": [[3, 7]] * 8, "valid": [[3, 4]] * 4, "test": [[3, 4]] * 4}
DAYS = {"2024-01-01": [[3, 4]] * 8, "2024-01-02": [[5, 6]] * 6, "2024-01-03": [[3, 4]] * 5}


@pytest.fixture
def days(write: Callable[..., Path], schema_of: Callable[..., Any], tmp_path: Path) -> Path:
    features = write(tmp_path / "features", WINDOWS, 6, schema=schema_of(6, 8, side=False))
    for day, sessions in DAYS.items():
        inputs = {"features": identity(features)}
        with new_folder(features / "days" / day, "day", {"day": day}, inputs) as folder:
            table = {"session_id": range(len(sessions)), "item_id": sessions}
            pq.write_table(pa.table(table), folder.path / "part-a-00000.parquet")
            (folder.path / "open").mkdir()
            pq.write_table(pa.table({"raw": ["x"]}), folder.path / "open" / "a.parquet")
    return features


def test_a_window_of_days_is_their_sessions_one_day_behind_another(days: Path) -> None:
    assert read_sessions(days, "2024-01-02", [ITEM]).values["item_id"].tolist() == [5, 6] * 6
    read = read_sessions(days, "2024-01-02..2024-02-01", [ITEM])
    assert read.values["item_id"].tolist() == [5, 6] * 6 + [3, 4] * 5
    with pytest.raises(UserError, match="holds no day of --window 2024-01-04"):
        read_sessions(days, "2024-01-04", [ITEM])


def test_a_day_without_sessions_says_so(days: Path) -> None:
    with new_folder(days / "days" / "2024-01-04", "day", {}, {"features": identity(days)}) as folder:
        (folder.path / "open").mkdir()
        pq.write_table(pa.table({"raw": ["x"]}), folder.path / "open" / "a.parquet")
    with pytest.raises(UserError, match="2024-01-04 holds no sessions: name more days"):
        read_sessions(days, "2024-01-04", [ITEM])


def test_train_on_a_day_and_evaluate_on_another(days: Path, tmp_path: Path) -> None:
    settings = tr.ModelSettings(**QUICK)
    report = tr.train(days, tmp_path / "model", settings, window="2024-01-01", valid_window="2024-01-02")
    assert report["sessions"] == 8
    assert report["windows"] == {"train": "2024-01-01", "valid": "2024-01-02"}
    manifest = read_manifest(tmp_path / "model", "model", "nextitem train")
    assert manifest["inputs"] == {
        "features": identity(days),
        "days/2024-01-01": identity(days / "days" / "2024-01-01"),
        "days/2024-01-02": identity(days / "days" / "2024-01-02"),
    }
    result = tr.evaluate(tmp_path / "model", days, "2024-01-03")
    assert (result["window"], result["sessions"]) == ("2024-01-03", 5)
    # The table of counts knows what the model was trained on: after 3 comes 4, not 7 as in the training window.
    assert result["metrics"]["cooccurrence"]["mrr@10"] == 1


def test_without_a_window_it_is_the_split(days: Path, tmp_path: Path) -> None:
    report = tr.train(days, tmp_path / "model", tr.ModelSettings(**QUICK))
    assert report["windows"] == {"train": "train", "valid": "valid"}
    assert read_manifest(tmp_path / "model", "model", "nextitem train")["inputs"] == {"features": identity(days)}
    assert tr.evaluate(tmp_path / "model", days, "2024-01-03")["metrics"]["cooccurrence"]["mrr@10"] < 1
