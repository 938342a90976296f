"""What a `Trainer` writes and shows beside checkpoints: figures as JSON lines, lists as parquet, progress."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor
from transformers import TrainerCallback

from common.progress import Bar, say, step

METRICS = "metrics.jsonl"
PREDICTIONS = "predictions"


class MetricsFile(TrainerCallback):
    """Appends whatever is logged to ``output_dir/metrics.jsonl``, a line a time: ``{"step", "epoch", "loss", ...}``.

    A run that resumes takes back the lines behind its checkpoint; another run begins the file anew.
    """

    def __init__(self) -> None:
        self._begun = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Begin, or go on."""
        if not state.is_world_process_zero or self._begun:
            return
        self._begun = True
        file = Path(args.output_dir) / METRICS
        if not file.is_file():
            return
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if state.global_step else []
        kept = [line for line in lines if json.loads(line)["step"] <= state.global_step]
        file.write_text("".join(kept), encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        """Append a line."""
        if not state.is_world_process_zero or not logs:
            return
        self._begun = True
        line = {"step": state.global_step, **{name: _plain(value) for name, value in logs.items()}}
        file = Path(args.output_dir) / METRICS
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")


class ProgressLines(TrainerCallback):
    """A bar in a terminal; elsewhere a line for the whole training and one an evaluation."""

    def __init__(self) -> None:
        self._stack, self._bar, self._done = ExitStack(), Bar(None, None, ""), 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Open the bar."""
        quiet = not state.is_world_process_zero or bool(args.disable_tqdm)
        self._bar = self._stack.enter_context(step("Training", state.max_steps, quiet=quiet))
        self._bar.advance(state.global_step)
        self._done = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Move it."""
        self._bar.advance(state.global_step - self._done)
        self._done = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        """Say the loss, or the figures of an evaluation."""
        if not state.is_world_process_zero or args.disable_tqdm or not logs:
            return
        loss = logs.get("loss", logs.get("train_loss"))
        if loss is not None:
            self._bar.say(f"loss {loss:.4f}")
        found = [f"{name.partition('_/')[2]} {value:.4f}" for name, value in logs.items() if "_/" in name]
        if found:
            say(f"Step {state.global_step}: {', '.join(found)}")

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Close the bar."""
        self._stack.close()


class PredictionsFile:
    """Writes the lists of an evaluation to a parquet file, batch by batch: session, label, item_ids, scores.

    Parameters
    ----------
    folder : Path or str
        The run's ``output_dir``.
    name : str
        Of the file: ``eval-200`` for step 200.
    rank, world_size : int
        Each process writes a file of its own; where there are several the name says which.
    """

    def __init__(self, folder: Path | str, name: str, rank: int = 0, world_size: int = 1) -> None:
        several = f"-{rank}-of-{world_size}" if world_size > 1 else ""
        self.path = Path(folder) / PREDICTIONS / f"{name}{several}.parquet"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer: Any = None

    def add(self, labels: Tensor, ids: Tensor, scores: Tensor, numbers: Tensor, metrics: dict[str, float]) -> None:
        """Write a batch: labels [N] (0: nothing to predict), item ids and scores [N, top_k], sessions [N]."""
        table = pa.table(
            {
                "session": numbers.cpu().numpy(),
                "label": labels.cpu().numpy(),
                "item_ids": pa.array(list(ids.cpu().numpy()), pa.list_(pa.int64())),
                "scores": pa.array(list(scores.float().cpu().numpy()), pa.list_(pa.float32())),
            }
        )
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


def _plain(value: Any) -> Any:
    """A number as JSON has it."""
    if isinstance(value, str | int):
        return value
    return float(value) if math.isfinite(value) else None
