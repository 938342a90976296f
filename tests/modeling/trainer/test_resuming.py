"""A run that was interrupted and resumed is, bit by bit, the run that was not."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

import modeling as tr
from common.errors import UserError

from .small import arguments, furthest, model, sessions, weights, write


class Interrupt(TrainerCallback):
    """Ends training behind a step, as a signal would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: object, state: object, control: object, **others: object) -> None:
        control.should_training_stop = state.global_step == self.step  # type: ignore[attr-defined]


def run(folder: Path, data: object, made: object, stop: int | None = None, resume: object = None, **given: object):
    defaults = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "cosine"}
    args = arguments(folder, **{**defaults, **given})
    trainer = tr.Trainer(
        made,
        args,
        train_dataset_or_path=data,
        eval_dataset_or_path=sessions(20, seed=9),
        callbacks=[Interrupt(stop)] if stop else [],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize(
    ("masking", "architecture", "streamed", "stop", "given"),
    [
        ("clm", "gpt2", False, 3, {}),
        pytest.param("mlm", "bert", False, 4, {}, marks=pytest.mark.slow),  # at the end of an epoch
        ("mlm", "bert", True, 3, {"gradient_accumulation_steps": 2, "bf16": True}),
        pytest.param("clm", "sasrec", True, 5, {"eval_strategy": "steps", "eval_steps": 1}, marks=pytest.mark.slow),
    ],
)
def test_it_goes_on_as_if_nothing_had_happened(
    masking: str,
    architecture: str,
    streamed: bool,
    stop: int,
    given: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights, dropout, masks, order of the data, optimiser and schedule, in the middle of an epoch or between two."""
    data: object = sessions(100 if "gradient_accumulation_steps" in given else 60)
    if streamed:
        monkeypatch.setattr("modeling.trainer.data.IN_MEMORY_BYTES", 0)
        data = str(write(tmp_path / "a.parquet", 100 if "gradient_accumulation_steps" in given else 60, row_group=20))
        given = {**given, "shuffle_buffer_size": 32}
    whole = model(0.3, masking, architecture)
    reference = run(tmp_path / "whole", data, whole, **given)
    first = model(0.3, masking, architecture)
    run(tmp_path / "cut", data, first, stop=stop, **given)
    assert furthest(weights(first), weights(whole)) > 0
    torch.manual_seed(12345)
    second = model(0.3, masking, architecture, seed=2)
    resumed = run(tmp_path / "cut", data, second, resume=True, **given)
    assert resumed.state.global_step == reference.state.global_step
    assert furthest(weights(second), weights(whole)) == 0


class Touch:
    """What a pickle would run."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_that_would_run_code_is_refused(name: str, tmp_path: Path) -> None:
    run(tmp_path, sessions(40), model(), stop=2)
    folder, witness = tmp_path / "checkpoint-2", tmp_path / "witness"
    assert not list(folder.glob("*.bin"))  # Hugging Face's pickled arguments
    (folder / name).write_bytes(pickle.dumps({"state": Touch(witness)}))
    with pytest.raises(UserError, match="cannot be loaded"):
        run(tmp_path, sessions(40), model(), resume=str(folder))
    assert not witness.exists()


def test_what_cannot_be_resumed_exactly_is_refused(tmp_path: Path) -> None:
    run(tmp_path, sessions(40), model(), stop=2)
    folder = str(tmp_path / "checkpoint-2")
    with pytest.raises(UserError, match="other batch size"):
        run(tmp_path, sessions(40), model(), resume=folder, per_device_train_batch_size=8)
    with pytest.raises(UserError, match="other sessions"):
        run(tmp_path, sessions(40, seed=3), model(), resume=folder)
    with pytest.raises(UserError, match="another model"):
        run(tmp_path, sessions(40), model(architecture="sasrec"), resume=folder)
    with pytest.raises(UserError, match="is no checkpoint"):
        run(tmp_path, sessions(40), model(), resume=folder + "0")
