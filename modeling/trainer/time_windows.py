"""Training on one window of time and evaluating on the next, window after window."""

from __future__ import annotations

from pathlib import Path

from common.artefacts import read_manifest
from common.days import list_days, window_files
from common.errors import UserError
from common.progress import say
from modeling.trainer.trainer import Trainer


def fit_and_evaluate(
    trainer: Trainer, start_time_index: int | str, end_time_index: int | str, input_dir: Path | str
) -> dict[str, list[float]]:
    """Go on training on each window, and evaluate on the one behind it.

    Parameters
    ----------
    trainer : Trainer
        Made without dataloaders, with ``compute_metrics=True``. Its schedule and optimiser begin anew in each window,
        the weights go on.
    start_time_index, end_time_index : int or str
        The first and the last window to train on. Window t is ``t/train.parquet``, evaluated on
        ``t+1/valid.parquet``. In a features folder with days (``nextitem preprocess --append``) windows are days: give
        dates, or numbers that count the days from 0.
    input_dir : Path or str
        Where the windows are.

    Returns
    -------
    dict of str to list of float
        ``{"indexed_by_time_eval_/next-item/ndcg@10": [...]}``, a value a window.

    Raises
    ------
    UserError
        When a window is missing.
    """
    if trainer.train_dataloader is not None or trainer.eval_dataloader is not None:
        raise UserError("fit_and_evaluate reads the windows itself: make the Trainer without dataloaders")
    found: dict[str, list[float]] = {}
    for name, train, valid in _windows(Path(input_dir), start_time_index, end_time_index):
        trainer.train_dataset_or_path = train
        trainer.reset_lr_scheduler()
        trainer.optimizer = None
        trainer.train()
        trainer.eval_dataset_or_path = valid
        metrics = trainer.evaluate(metric_key_prefix="eval")
        for key in sorted(key for key in metrics if "_at_" in key):
            found.setdefault(f"indexed_by_time_{key.replace('_at_', '@')}", []).append(metrics[key])
        say(f"Window {name}: loss {metrics['eval_loss']:.4f} on the next one")
        trainer.wipe_memory()
    return found


def _windows(folder: Path, start: int | str, end: int | str) -> list[tuple[str, list[str], list[str]]]:
    """Name, training files and evaluation files of each window."""
    days = list_days(folder) if (folder / "days").is_dir() else []
    if days:
        read_manifest(folder, "features", "nextitem preprocess")
        first, last = (_place(days, index, folder) for index in (start, end))
        if not first <= last < len(days) - 1:
            raise UserError(f"{folder} has the days {days[0]} to {days[-1]}: each to train on needs one behind it")
        files = [[str(file) for file in window_files(folder, day)] for day in days[first : last + 2]]
        return [(day, files[i], files[i + 1]) for i, day in enumerate(days[first : last + 1])]
    if isinstance(start, str) or isinstance(end, str) or start > end:
        raise UserError(f"{folder} has no days: give the numbers of its folders, the first not above the last")
    found = []
    for index in range(start, end + 1):
        train, valid = folder / str(index) / "train.parquet", folder / str(index + 1) / "valid.parquet"
        missing = next((path for path in (train, valid) if not path.exists()), None)
        if missing is not None:
            raise UserError(f"{missing} is missing: windows are folders with train.parquet and valid.parquet")
        found.append((str(index), [str(train)], [str(valid)]))
    return found


def _place(days: list[str], index: int | str, folder: Path) -> int:
    if isinstance(index, int):
        return index if index >= 0 else len(days)
    if index not in days:
        raise UserError(f"{folder} has no day {index}: it has {', '.join(days)}")
    return days.index(index)
