"""What a step learns from, at which rate, and when training ends."""

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

import modeling as tr
from common.errors import UserError
from modeling.checkpoint import load
from modeling.loader import MerlinDataLoader

from .small import arguments, furthest, model, rows, sessions, weights, write

NDCG = "eval_/next-item/ndcg_at_10"


def trained(folder: Path, made: object, data: object, **given: object) -> tr.Trainer:
    trainer = tr.Trainer(made, arguments(folder, **given), train_dataset_or_path=data)
    trainer.train()
    return trainer


def test_it_learns_the_rule(tmp_path: Path) -> None:
    made = model()
    file = write(tmp_path / "valid" / "a.parquet", 100, seed=1).parent
    args = arguments(tmp_path, num_train_epochs=4, per_device_train_batch_size=32, learning_rate=0.02)
    trainer = tr.Trainer(
        made, args, train_dataset_or_path=sessions(600), eval_dataset_or_path=str(file), compute_metrics=True
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before[NDCG] < 0.5 < 0.8 < after[NDCG]
    loader = MerlinDataLoader(sessions(100, seed=1), 32)
    assert made.evaluate(loader)[NDCG] == pytest.approx(after[NDCG], abs=1e-12)


def test_accumulated_batches_weigh_by_their_targets(tmp_path: Path) -> None:
    """Four batches of eight sessions of different lengths are one batch of all of them, not a mean of four means."""
    data = sessions(32)
    once, summed = model(), model()
    trained(tmp_path, once, data, per_device_train_batch_size=32, max_grad_norm=0.5)
    accumulated = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4, "max_grad_norm": 0.5}
    both = [
        trainer.state.log_history[-1]["train_loss"]
        for trainer in (
            trained(tmp_path, model(), data, per_device_train_batch_size=32),
            trained(tmp_path, summed, data, **accumulated),
        )
    ]
    assert furthest(weights(once), weights(summed)) < 1e-5
    assert furthest(weights(once), weights(model())) > 1e-3
    assert both[0] == pytest.approx(both[1], rel=1e-5)


def test_a_batch_without_targets_changes_nothing(tmp_path: Path) -> None:
    """Weight decay and momentum included: the optimiser is not asked for a step."""
    made = model()
    before = weights(made)
    alone = {"item_id": torch.tensor([[5], [6]])}
    for steps in (1, 2):
        args = arguments(tmp_path, weight_decay=0.5, gradient_accumulation_steps=steps)
        tr.Trainer(made, args, train_dataloader=[alone, alone]).train()
        assert furthest(before, weights(made)) == 0


class Rates(TrainerCallback):
    """The learning rate of each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_step_end(self, args: object, state: object, control: object, **others: object) -> None:
        self.seen.append(others["optimizer"].param_groups[0]["lr"])  # type: ignore[attr-defined]


def test_cosines_count_their_waves_by_the_epoch(tmp_path: Path) -> None:
    rates = Rates()
    args = arguments(
        tmp_path, num_train_epochs=2, lr_scheduler_type="cosine", learning_rate_num_cosine_cycles_by_epoch=1.0
    )
    trainer = tr.Trainer(model(), args, train_dataset_or_path=sessions(64), callbacks=[rates])
    trainer.train()
    # Four steps an epoch and one wave: down to 0 in the middle of each epoch, and up again.
    wave = [0.01 * 0.5 * (1 + math.cos(2 * math.pi * step / 4)) for step in range(1, 9)]
    assert rates.seen == pytest.approx(wave, abs=1e-9)
    trainer.reset_lr_scheduler()
    rates.seen.clear()
    trainer.train()
    assert rates.seen == pytest.approx(wave, abs=1e-9)


def test_it_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    made = model(dropout=0.1)
    args = arguments(
        tmp_path,
        num_train_epochs=20,
        learning_rate=3.0,  # everything after the first evaluation is worse
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="loss",
    )
    trainer = tr.Trainer(
        made,
        args,
        train_dataset_or_path=sessions(64),
        eval_dataset_or_path=sessions(32, seed=1),
        callbacks=[EarlyStoppingCallback(2)],
    )
    trainer.train()
    losses = [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line]
    assert len(losses) < 20
    assert losses.index(min(losses)) == len(losses) - 3
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), abs=1e-9)
    best = trainer.state.best_model_checkpoint
    assert furthest(weights(made), weights(load(best, tr.Model))) == 0


COMPILED = {"torch_compile": True, "torch_compile_backend": "eager", "dataloader_drop_last": True}


@pytest.mark.parametrize("option", [{"bf16": True}, pytest.param(COMPILED, marks=pytest.mark.slow)])
def test_options_of_accelerate_run(tmp_path: Path, option: dict[str, object]) -> None:
    made, plain = model(), model()
    before = weights(made)
    trainer = trained(tmp_path, made, sessions(64), **option)
    trained(tmp_path, plain, sessions(64))
    away = furthest(weights(made), weights(plain))
    # bf16 rounds; a compiled model computes the same, on batches padded to one width.
    assert 0 < away < 0.05 if "bf16" in option else away < 1e-4
    assert furthest(before, weights(made)) > 1e-3
    # The model itself is as it was: its scores are in full precision.
    assert made({"item_id": torch.tensor([[3, 4]])}).dtype == torch.float32
    trainer.train()


def test_several_tasks_and_their_targets(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = model()
    body = base.head.body
    made = tr.Model(tr.Head(body, [tr.NextItemPredictionTask(weight_tying=True), tr.BinaryClassificationTask("buys")]))
    batches = []
    for seed in range(8):
        columns = sessions(16, seed).padded(torch.arange(16), 8)
        batches.append((columns, {"buys": (columns["item_id"][:, 0] % 2).float()}))
    args = arguments(tmp_path, num_train_epochs=8)
    trainer = tr.Trainer(made, args, train_dataloader=batches, eval_dataloader=batches, compute_metrics=True)
    before = trainer.evaluate()["eval_/loss"]
    trainer.train()
    found = trainer.evaluate()
    assert found["eval_/loss"] < before
    assert found["eval_/buys/binary_classification_task/accuracy"] > 0.9
    assert set(trainer.predict(batches).predictions) == {"next-item", "buys/binary_classification_task"}


@pytest.mark.parametrize("streamed", [False, True])
def test_targets_are_read_from_the_files(streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if streamed:
        monkeypatch.setattr("modeling.trainer.data.IN_MEMORY_BYTES", 0)
    items = rows(96)
    buys = pa.array([float(row[0] % 2) for row in items], pa.float32())
    pq.write_table(pa.table({"item_id": items, "buys": buys}), tmp_path / "a.parquet")
    tags = tr.Tags
    events = {"is_list": True, "is_ragged": True, "properties": {"domain": {"min": 0, "max": 14}}}
    columns = [tr.ColumnSchema("item_id", dtype="int64", tags=[tags.ITEM_ID, tags.CATEGORICAL], **events)]
    columns.append(tr.ColumnSchema("buys", dtype="float32", tags=[tags.BINARY_CLASSIFICATION, tags.TARGET]))
    made = tr.Model(tr.Head(model().head.body, tr.BinaryClassificationTask("buys", summary_type="mean")))
    path = str(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="give the Trainer a schema"):
        tr.Trainer(made, arguments(tmp_path), train_dataset_or_path=path).train()
    trainer = tr.Trainer(
        made, arguments(tmp_path), tr.Schema(columns), path, path, compute_metrics=True, test_dataset_or_path=path
    )
    trainer.train()
    chances = trainer.predict().predictions
    expected = ((chances > 0.5) == buys.to_numpy()).mean()
    assert trainer.evaluate()["eval_/buys/binary_classification_task/accuracy"] == pytest.approx(expected)


def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    def message(made: object, given: dict[str, object], **data: object) -> str:
        with pytest.raises(UserError) as caught:
            tr.Trainer(made, arguments(tmp_path, **given), **data).train()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "train_dataset_or_path" in message(model(), {})
    assert "holds no parquet files" in message(model(), {}, train_dataset_or_path=str(tmp_path / "nowhere"))
    assert "data_loader_engine" in message(model(), {"data_loader_engine": "petastorm"})
    assert "fp16 needs a GPU" in message(model(), {"fp16": True, "no_cuda": True})
    assert "eval" in message(model(), {"eval_strategy": "epoch"}, train_dataset_or_path=sessions(20))
    wrong = {"metric_for_best_model": "ndcg", "load_best_model_at_end": True, "save_strategy": "best"}
    assert NDCG in message(model(), wrong, compute_metrics=True)
    unsaved = tr.Model(tr.Head(model().head.body, tr.NextItemPredictionTask(loss=torch.nn.MultiMarginLoss())))
    assert "save_strategy='no'" in message(unsaved, {"save_strategy": "steps"}, train_dataset_or_path=sessions(20))
    with pytest.raises(UserError, match="no checkpoint to resume"):
        tr.Trainer(model(), arguments(tmp_path / "new"), train_dataset_or_path=sessions(20)).train(True)
    with pytest.raises(UserError, match="nothing to predict"):
        tr.Trainer(model(), arguments(tmp_path), eval_dataloader=[{"item_id": torch.tensor([[5]])}]).evaluate()
