"""Two processes, started by torchrun, come to what one comes to; and resume exactly."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .small import write

# Double precision, so that the order of additions hardly shows.
PROGRAM = """
import json, sys
sys.path[:0] = [{root!r}, {here!r}]
from transformers import TrainerCallback
from small import arguments, furthest, model, weights
import modeling as tr
import modeling.trainer.data

class Interrupt(TrainerCallback):
    def on_step_end(self, args, state, control, **others):
        control.should_training_stop = state.global_step == 3

def made(folder, model, *callbacks, **given):
    args = arguments(folder, num_train_epochs=2, gradient_accumulation_steps=2, **given)
    return tr.Trainer(model.double(), args, train_dataset_or_path={train!r}, eval_dataset_or_path={valid!r},
                      test_dataset_or_path={valid!r}, compute_metrics=True, callbacks=callbacks)

folder, size = sys.argv[1], int(sys.argv[2])
trainer = made(folder, model(), per_device_train_batch_size=size, per_device_eval_batch_size=size,
               log_predictions=True, save_strategy="epoch")
trainer.train()
in_memory = trainer.evaluate()
lists = trainer.predict().predictions[0].tolist()
modeling.trainer.data.IN_MEMORY_BYTES = 0
streamed = trainer.evaluate([{valid!r}])
found = {{"lists": lists, "weights": {{name: value.tolist() for name, value in weights(trainer.model.module).items()}}}}
found["metrics"] = [{{name: value for name, value in each.items() if "_/" in name}} for each in (in_memory, streamed)]

if trainer.args.world_size > 1:
    options = {{"per_device_train_batch_size": size, "save_strategy": "steps", "save_steps": 1}}
    whole, cut, resumed = (model(0.3, "mlm", "bert", seed) for seed in (1, 1, 2))
    made(folder + "/whole", whole, **options).train()
    made(folder + "/cut", cut, Interrupt(), **options).train()
    made(folder + "/cut", resumed, **options).train(True)
    found["apart"] = [furthest(weights(each), weights(whole)) for each in (cut, resumed)]
if trainer.is_world_process_zero():
    with open(folder + "/found.json", "w") as stream:
        json.dump(found, stream)
trainer.end()
"""


def launch(tmp_path: Path, processes: int) -> dict[str, Any]:
    here = Path(__file__).parent
    program, folder = tmp_path / "program.py", tmp_path / f"out-{processes}"
    train = str(write(tmp_path / "train.parquet", 119, 0, row_group=10))
    valid = str(write(tmp_path / "valid.parquet", 37, 1, row_group=10))
    program.write_text(PROGRAM.format(root=str(here.parents[2]), here=str(here), train=train, valid=valid))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [sys.executable, *(torchrun if processes > 1 else []), program, folder, str(16 // processes)],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((folder / "predictions").glob("*.parquet"))) == processes
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    """119 sessions in global batches of 16, the last of seven, two of them a step: the same weights and figures."""
    one, two = launch(tmp_path, 1), launch(tmp_path, 2)
    assert set(two["weights"]) == set(one["weights"])
    for name, value in one["weights"].items():
        flat, same = (_flat(each) for each in (value, two["weights"][name]))
        assert same == pytest.approx(flat, abs=1e-10)
    assert len(one["lists"]) == 37
    assert two["lists"] == one["lists"]
    for found in (*one["metrics"], *two["metrics"]):
        assert found == pytest.approx(one["metrics"][0], abs=1e-9)
    # Dropout and masks of each process, interrupted in the middle of an epoch.
    cut, resumed = two["apart"]
    assert cut > 0
    assert resumed == 0


def _flat(value: Any) -> list[float]:
    return [number for part in value for number in _flat(part)] if isinstance(value, list) else [value]
