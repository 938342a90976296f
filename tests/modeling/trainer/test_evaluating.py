"""What evaluation counts, what prediction answers, and what a run leaves behind."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import modeling as tr
from modeling.loader import MerlinDataLoader

from .small import arguments, model, sessions, write


def test_the_loss_is_that_of_the_last_items(tmp_path: Path) -> None:
    made, data = model(), sessions(40)
    trainer = tr.Trainer(made, arguments(tmp_path), eval_dataset_or_path=data)
    found = trainer.evaluate()
    columns = data.padded(torch.arange(40), 8)
    past, last = columns["item_id"].clone(), data.lengths - 1
    target = past[torch.arange(40), last]
    past[torch.arange(40), last] = 0
    expected = torch.nn.functional.cross_entropy(made.eval()({"item_id": past}), target)
    assert found["eval_/loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert not any("ndcg" in name for name in found)


def test_dropout_is_off_and_training_goes_on_in_its_mode(tmp_path: Path) -> None:
    made = model(dropout=0.5).train()
    trainer = tr.Trainer(made, arguments(tmp_path), eval_dataset_or_path=sessions(40), compute_metrics=True)
    first, second = trainer.evaluate(), trainer.evaluate()
    assert first["eval_/loss"] == second["eval_/loss"]
    assert made.training


def test_lists_are_in_the_order_of_the_data(tmp_path: Path) -> None:
    made = model().eval()
    file = write(tmp_path / "test.parquet", 45, seed=3)
    trainer = tr.Trainer(made, arguments(tmp_path), test_dataset_or_path=str(file))
    ids, scores = trainer.predict().predictions
    assert ids.shape == scores.shape == (45, 5)
    best, expected = made(sessions(45, seed=3).padded(torch.arange(45), 8), top_k=5)
    assert np.array_equal(ids, expected.numpy())
    assert np.allclose(scores, best.detach().numpy(), atol=1e-5)
    # Any loader and any batches give the same.
    for given in (MerlinDataLoader(sessions(45, seed=3), 7), list(MerlinDataLoader(sessions(45, seed=3), 7))):
        assert np.array_equal(trainer.predict(given).predictions[0], ids)


def test_lists_are_logged_to_parquet_or_to_a_callback(tmp_path: Path) -> None:
    made = model()
    args = arguments(tmp_path, log_predictions=True, compute_metrics_each_n_steps=2)
    trainer = tr.Trainer(made, args, eval_dataset_or_path=sessions(45), compute_metrics=True)
    trainer.evaluate()
    (file,) = (tmp_path / "predictions").glob("*.parquet")
    rows = pq.read_table(file).to_pydict()
    assert len(rows["session"]) == 16 + 13  # the first and the third batch
    items = sessions(45).values["item_id"]
    ends = sessions(45).offsets[1:] - 1
    assert rows["label"] == items[ends[rows["session"]]].tolist()
    assert all(len(ids) == 5 for ids in rows["item_ids"])
    told = []
    trainer.log_predictions_callback = lambda **given: told.append(given)
    trainer.evaluate(metric_key_prefix="test")
    assert [len(given["labels"]) for given in told] == [16, 13]
    assert {given["dataset_type"] for given in told} == {"test"}
    assert "test_/next-item/ndcg_at_10" in told[0]["metrics"]


def test_a_function_of_ones_own_is_given_lists_and_labels(tmp_path: Path) -> None:
    def hits(found: object) -> dict[str, float]:
        ids, scores = found.predictions  # type: ignore[attr-defined]
        assert scores.shape == ids.shape
        return {"hits": float((ids == found.label_ids[:, None]).any(1).mean())}  # type: ignore[attr-defined]

    made, data = model(), sessions(45)
    own = tr.Trainer(made, arguments(tmp_path), eval_dataset_or_path=data, compute_metrics=hits).evaluate()
    made.head.tasks[0].metrics = [tr.RecallAt([5])]
    same = tr.Trainer(made, arguments(tmp_path), eval_dataset_or_path=data, compute_metrics=True).evaluate()
    assert own["eval_hits"] == pytest.approx(same["eval_/next-item/recall_at_5"])


def test_every_position_can_be_evaluated(tmp_path: Path) -> None:
    made, data = model(), sessions(45)
    made.inputs.masking.eval_on_last_item_seq_only = False
    args = arguments(tmp_path, log_predictions=True)
    tr.Trainer(made, args, eval_dataset_or_path=data, compute_metrics=True).evaluate()
    (file,) = (tmp_path / "predictions").glob("*.parquet")
    counts = np.bincount(pq.read_table(file)["session"].to_numpy(), minlength=45)
    assert counts.tolist() == (data.lengths - 1).tolist()


def test_other_data_by_name_and_parts_of_the_training_data(tmp_path: Path) -> None:
    args = arguments(tmp_path, eval_steps_on_train_set=2, eval_on_test_set=True)
    trainer = tr.Trainer(
        model(),
        args,
        train_dataset_or_path=sessions(200),
        eval_dataset_or_path=sessions(20),
        test_dataset_or_path=sessions(45, seed=1),
    )
    assert trainer.evaluate(metric_key_prefix="train")["train_loss"] > 0
    assert trainer.evaluate()["eval_loss"] == trainer.evaluate(sessions(45, seed=1))["eval_loss"]
    both = trainer.evaluate({"a": sessions(20), "b": sessions(45, seed=1)})
    assert {"eval_a_loss", "eval_b_loss"} <= set(both)


def test_figures_go_to_json_lines_and_tensorboard(tmp_path: Path) -> None:
    args = arguments(
        tmp_path,
        num_train_epochs=2,
        logging_steps=2,
        eval_strategy="epoch",
        report_to="tensorboard",
        logging_dir=str(tmp_path / "board"),
    )
    trainer = tr.Trainer(
        model(),
        args,
        train_dataset_or_path=sessions(64),
        eval_dataset_or_path=sessions(20),
        compute_metrics=True,
        incremental_logging=True,
    )
    trainer.train()
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(2, 17, 2))
    assert [line["step"] for line in lines if "eval_/next-item/ndcg_at_10" in line] == [4, 8, 12, 16]
    assert trainer.state.global_step == 8
    assert list((tmp_path / "board").glob("events.*"))
    # Another run begins anew.
    again = tr.Trainer(model(), arguments(tmp_path, logging_steps=2), train_dataset_or_path=sessions(64))
    again.train()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
