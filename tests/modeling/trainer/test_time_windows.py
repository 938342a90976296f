"""Training window after window: folders with numbers, and the days of a features folder."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import modeling as tr
from common.artefacts import identity, new_folder
from common.errors import UserError
from modeling.loader import MerlinDataLoader

from .small import arguments, model, rows, sessions, write

NDCG = "indexed_by_time_eval_/next-item/ndcg@10"


def trainer(folder: Path, made: Any, **given: Any) -> tr.Trainer:
    return tr.Trainer(made, arguments(folder, num_train_epochs=2), compute_metrics=True, **given)


def test_each_window_is_measured_on_the_next(tmp_path: Path) -> None:
    for index in (1, 2, 3):
        write(tmp_path / str(index) / "train.parquet", 120, seed=index)
        write(tmp_path / str(index) / "valid.parquet", 40, seed=10 + index)
    made = model()
    found = tr.fit_and_evaluate(trainer(tmp_path / "out", made), 1, 2, tmp_path)
    assert len(found[NDCG]) == 2
    assert found[NDCG][1] > found[NDCG][0] > 0.3  # the weights go on
    last = made.evaluate(MerlinDataLoader(sessions(40, seed=13), 16))["eval_/next-item/ndcg_at_10"]
    assert found[NDCG][1] == pytest.approx(last, abs=1e-9)
    with pytest.raises(UserError, match=r"4/valid\.parquet is missing"):
        tr.fit_and_evaluate(trainer(tmp_path / "out", made), 1, 3, tmp_path)
    with pytest.raises(UserError, match="without dataloaders"):
        tr.fit_and_evaluate(trainer(tmp_path / "out", made, train_dataloader=[{}]), 1, 2, tmp_path)


def test_the_days_of_features_are_windows(tmp_path: Path) -> None:
    folder, days = tmp_path / "features", ["2026-11-20", "2026-11-21", "2026-11-23"]
    with new_folder(folder, "features", {}) as made:
        (made.path / "schema.pbtxt").write_text("")
    for seed, day in enumerate(days):
        with new_folder(folder / "days" / day, "day", {}, {"features": identity(folder)}) as made:
            table = pa.table({"item_id": pa.array(rows(48, seed), pa.list_(pa.int64()))})
            pq.write_table(table, made.path / "part-0.parquet")
    by_date = tr.fit_and_evaluate(trainer(tmp_path / "out", model()), "2026-11-20", "2026-11-20", folder)
    assert len(by_date[NDCG]) == 1
    # Days are counted as they are there: behind the second comes the 23rd.
    by_number = tr.fit_and_evaluate(trainer(tmp_path / "out", model()), 0, 1, folder)
    assert by_number[NDCG][0] == by_date[NDCG][0]
    assert len(by_number[NDCG]) == 2
    with pytest.raises(UserError, match="needs one behind it"):
        tr.fit_and_evaluate(trainer(tmp_path / "out", model()), 0, 2, folder)
    with pytest.raises(UserError, match="no day 2026-11-22"):
        tr.fit_and_evaluate(trainer(tmp_path / "out", model()), "2026-11-22", "2026-11-23", folder)
