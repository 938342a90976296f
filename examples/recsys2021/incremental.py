"""The paper's protocol: train on one window, evaluate on the next, go on with the same weights, average over time.

Windows are days or hours. A model never sees what it is evaluated on: it is scored on window t + 1 after the windows up
to t, one after another, each with a new optimiser and a learning rate that falls to 0. The vocabulary is that of all
windows, so an item that comes up in window t + 1 for the first time counts as not found. Of each window's sessions one
half, always the same, is for choosing hyperparameters ("valid"), the other for the figures ("test").
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch
from torch import Tensor

from common.artefacts import identity, new_folder, read_manifest
from common.errors import UserError
from common.progress import say, step
from examples.recsys2021.downloads import WINDOW_DIGITS
from examples.recsys2021.recipes import Recipe, build, optimizer
from modeling.compute import pick_device, threads
from modeling.data import Sessions, joined, read_sessions
from modeling.evaluation import ranks
from modeling.evaluation.sessions_file import read_session_ids
from modeling.loop import fit
from modeling.model import Model
from modeling.ranking_metric import summary
from modeling.schema import Feature, features_of, max_length_of, read_schema
from preprocessing.preprocess import preprocess
from preprocessing.settings import Dataset, Split

# The vocabulary and the moments are those of (nearly) all sessions; the stage insists on two windows behind the first.
WHOLE = Split(valid=1e-4, test=1e-4)
_SPLITS = ("train", "valid", "test")
HALVES = ("test", "valid")
_KIND = "reproduction"


@dataclass
class Windows:
    """The sessions of a data set with the window of each.

    Attributes
    ----------
    sessions : Sessions
        All.
    number : Tensor [S], int64
        Of the window, from 1.
    test : Tensor [S], bool
        Which half of its window a session is in.
    first : Tensor [cardinality], int64
        The first window that has an item.
    features : list of Feature
        The columns.
    limit : int
        The most events of a session.
    """

    sessions: Sessions
    number: Tensor
    test: Tensor
    first: Tensor
    features: list[Feature]
    limit: int

    @property
    def last(self) -> int:
        """The last window."""
        return int(self.number.max())

    def train(self, number: int) -> Sessions:
        """All sessions of a window."""
        return self.sessions.where(self.number == number)

    def half(self, number: int, half: str) -> Sessions:
        """Those for the figures ("test"), or for choosing ("valid")."""
        return self.sessions.where((self.number == number) & (self.test if half == "test" else ~self.test))


def features_of_all(dataset: Dataset, output: Path) -> None:
    """Preprocess all windows together, unless that was done with the same description and events."""
    dataset = dataset.model_copy(update={"split": WHOLE})
    events = identity(dataset.data_root)
    marker = output.with_name(f"{output.name}.events")
    if (output / "manifest.json").is_file() and marker.is_file() and marker.read_text(encoding="utf-8") == events:
        made_with = read_manifest(output, "features", "nextitem preprocess", verify=False)["settings"]
        if made_with == dataset.model_dump(mode="json", include=set(Dataset.model_fields) - {"data_root"}):
            return
    preprocess(dataset, output)
    marker.write_text(events, encoding="utf-8")


def read_windows(features: Path, columns: str = "all") -> Windows:
    """Read the sessions that `features_of_all` wrote.

    Parameters
    ----------
    features : Path
        The folder.
    columns : {"all", "ids"}
        With side features, or item ids only.
    """
    read_manifest(features, "features", "nextitem preprocess")
    schema = read_schema(features)
    found = [feature for feature in features_of(schema) if columns == "all" or feature.item]
    numbers = []
    for split in _SPLITS:
        ids = read_session_ids(features, split)
        assert ids is not None  # our features have them
        window = pc.utf8_slice_codeunits(ids, 0, WINDOW_DIGITS).cast("int64")
        numbers.append(torch.from_numpy(window.to_numpy().copy()))
    sessions = joined([read_sessions(features, split, found) for split in _SPLITS])
    number, item = torch.cat(numbers), next(feature for feature in found if feature.item)
    first = torch.full((item.cardinality,), int(number.max()) + 1)
    first.scatter_reduce_(0, sessions.values[item.name], number.repeat_interleave(sessions.lengths), "amin")
    half = torch.rand(len(sessions), generator=torch.Generator().manual_seed(0)) < 0.5
    return Windows(sessions, number, half, first, found, max_length_of(schema))


class _Batches:
    """Shuffled batches of a window, as `modeling.loop.fit` goes over them."""

    def __init__(self, sessions: Sessions, batch_size: int, limit: int, seed: int) -> None:
        self.sessions, self.batch_size, self.limit = sessions, batch_size, limit
        self.shuffle = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return math.ceil(len(self.sessions) / self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (columns for _, columns in self.sessions.batches(self.batch_size, self.limit, self.shuffle))


def run(
    features: Path,
    recipe: Recipe,
    output: Path,
    windows: int | None = None,
    seed: int = 0,
    half: str = "test",
    device: str = "auto",
) -> dict[str, Any]:
    """Train and evaluate window by window.

    Killed at any moment, the same call goes on behind the last whole window, with the same result.

    Parameters
    ----------
    features : Path
        The folder of `features_of_all`.
    recipe : Recipe
        The model.
    output : Path
        Folder for the model and the figures so far.
    windows : int, optional
        Train on so many; by default on all but the last.
    seed : int
        Of weights, dropout, masks and shuffling.
    half : {"test", "valid"}
        Which sessions to evaluate on.
    device : {"auto", "cpu", "cuda"}
        Where. On a GPU training is in bf16; the paper's was in fp16.

    Returns
    -------
    dict
        ``windows``: a row each with ``train`` and ``evaluated`` (numbers), ``loss``, ``sessions`` of both,
        ``cold_targets`` (last items that no window before had), metrics and ``seconds``; ``aot``: the metrics' means
        over windows; ``parameters``, ``catalogue_size``.

    Raises
    ------
    UserError
        When there are fewer than two windows.
    """
    data = read_windows(features, "all" if recipe.side else "ids")
    last = min(windows or data.last, data.last - 1)
    if last < 1:
        raise UserError(f"{features} has one window only: there must be another to evaluate on")
    settings = {"recipe": recipe.model_dump(), "seed": seed, "half": half}
    inputs = {"features": identity(features)}
    place = pick_device(device)
    with threads(None):
        model, rows = _resumed(output, settings, inputs)
        if model is None:
            torch.manual_seed(seed)
            model = build(recipe, data.features, data.limit)
        model.to(place)
        for number in range(_done(rows) + 1, last + 1):
            row = _window(model, data, recipe, number, seed, half, place)
            if row is None:
                continue
            rows.append(row)
            with new_folder(output, _KIND, settings, inputs) as folder:
                model.save(folder.path)
                lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
                (folder.path / "windows.jsonl").write_text(lines, encoding="utf-8")
                folder.report["windows"] = rows
    rows = [row for row in rows if row["train"] <= last]
    if not rows:
        raise UserError(f"{features}: no window of 1 to {last} has sessions, nor has the one behind it")
    names = [name for name in rows[0] if "@" in name]
    return {
        "windows": rows,
        "aot": {name: sum(row[name] for row in rows) / len(rows) for name in names},
        "parameters": sum(p.numel() for p in model.parameters()),
        "catalogue_size": model.catalogue_size,
    }


def _done(rows: list[dict[str, Any]]) -> int:
    return int(rows[-1]["train"]) if rows else 0


def _resumed(
    output: Path, settings: dict[str, Any], inputs: dict[str, str]
) -> tuple[Model | None, list[dict[str, Any]]]:
    """The model behind the last whole window, and the rows so far."""
    if not (output / "manifest.json").is_file():
        return None, []
    manifest = read_manifest(output, _KIND, "python -m examples.recsys2021")
    if manifest["settings"] != settings or manifest["inputs"] != inputs:
        say(f"{output} is of other settings or events: begins anew")
        return None, []
    rows: list[dict[str, Any]] = manifest["report"]["windows"]
    say(f"{output}: goes on behind window {_done(rows)}")
    return Model.load(output), rows


def _window(
    model: Model, data: Windows, recipe: Recipe, number: int, seed: int, half: str, device: torch.device
) -> dict[str, Any] | None:
    """Train on a window and evaluate on the next; None where either has no session."""
    sessions, held_out = data.train(number), data.half(number + 1, half)
    if not len(sessions) or not len(held_out):
        say(f"Window {number}: skipped, there are {len(sessions)} sessions in it and {len(held_out)} in the next")
        return None
    began, item = time.perf_counter(), model.inputs.item
    # A resumed run draws as an uninterrupted one.
    torch.manual_seed(1_000_003 * seed + number)
    batches = _Batches(sessions, recipe.batch_size, data.limit, 1_000_003 * seed + number)
    adam = optimizer(recipe, model, recipe.epochs * len(batches))
    with step(f"Window {number}") as bar:
        losses = fit(model, batches, adam, num_epochs=recipe.epochs, amp=device.type == "cuda", verbose=False)
        if not math.isfinite(losses[-1]):
            raise UserError(f"window {number}: the loss is {losses[-1]}: lower the learning rate in recipes.csv")
        model.eval()
        found = ranks(model, held_out, item, data.limit, device=device)
        metrics = summary(found[~found.isnan()])
        bar.say(f"loss {losses[-1]:.4f}, NDCG@20 {metrics['ndcg@20']:.4f} on {len(held_out):,} sessions of the next")
    target = held_out.values[item.name][held_out.offsets[1:] - 1]
    return {
        "train": number,
        "evaluated": number + 1,
        "train_sessions": len(sessions),
        "sessions": int((~found.isnan()).sum()),
        "cold_targets": int((data.first[target] > number).sum()),
        "loss": losses[-1],
        **metrics,
        "seconds": time.perf_counter() - began,
    }
