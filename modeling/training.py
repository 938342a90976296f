"""The training stage: features/ in, model/ out.

``train(Path("features"), Path("model"), ModelSettings())`` builds the model from the schema, trains it with
early stopping on the validation window, and writes weights, description, TorchScript and history.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from common.artefacts import identity, new_folder, read_manifest
from common.days import day_identities
from common.errors import UserError
from common.progress import step
from modeling.compute import pick_device, threads
from modeling.construction import build_model
from modeling.data import read_sessions
from modeling.evidence.fitting import fit_with_evidence
from modeling.export.torchscript import MODEL_PT, export_torchscript
from modeling.fitting import training_window
from modeling.inputs.item_vectors import read_vectors
from modeling.model import Model
from modeling.report import measure, peak_mib, write_card
from modeling.schema import features_of, max_length_of, read_schema, schema_to_json
from modeling.settings import ModelSettings


def train(
    features: Path | str,
    output: Path | str,
    settings: ModelSettings | None = None,
    window: str = "train",
    valid_window: str = "valid",
    names: Callable[[Path], Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Train a model and write its folder.

    Parameters
    ----------
    features : Path or str
        The folder that ``preprocess`` wrote.
    output : Path or str
        The model folder to make or replace; it is replaced only when the new one is whole.
    settings : ModelSettings, optional
        How.
    window, valid_window : str
        What to train on, and what says when to stop: windows of the split, or days that were appended (see
        `common.days.days_in`).
    names : callable, optional
        Told the verified features folder, the item of each code as people know it, for the examples in
        ``report.html``; codes otherwise.

    Returns
    -------
    dict
        ``{"windows": {"train", "valid"}, "architecture", "masking", "parameters", "catalogue_size", "sessions",
        "epochs", "best_epoch", "train_sessions_per_s", "train_seconds", "device", "peak_mib",
        "evidence": see `modeling.evidence.fitting.add_evidence`, "valid": {"recall@10": ..., ...}}``. The throughput
        counts time in training steps, not in validation.

    Raises
    ------
    UserError
        When the features cannot be used.
    """
    features, settings = Path(features), settings or ModelSettings()
    read_manifest(features, "features", "nextitem preprocess")
    schema = read_schema(features)
    found = features_of(schema)
    limit = max_length_of(schema)
    if limit < 2:
        raise UserError(f"{features / 'schema.pbtxt'}: value_count.max of the item column must be at least 2")
    device, began = pick_device(settings.device), time.perf_counter()
    torch.manual_seed(settings.seed)
    with threads(settings.threads):
        model = build_model(found, limit, settings, read_vectors(features)).to(device)
        chosen = {"train": window, "valid": valid_window}
        train_sessions, counted = training_window(features, window, model, settings)
        windows = {"train": counted, "valid": read_sessions(features, valid_window, model.features)}
        if model.catalogue_size < 1:
            raise UserError(f"{features} has no items to recommend")
        inputs = {"features": identity(features), **day_identities(features, [window, valid_window])}
        given = settings.model_dump(mode="json")
        with new_folder(output, "model", given, inputs) as folder:
            sessions = train_sessions, windows["train"], windows["valid"]
            history, report = fit_with_evidence(model, *sessions, settings, device)
            report = {"windows": chosen, **report, **peak_mib(device)}
            with step("Writing the model card"):
                figures = measure(model.eval(), windows["train"], windows["valid"], settings.exclude, device)
                facts = {**report, "epochs_allowed": settings.epochs, "seconds": time.perf_counter() - began}
                inputs_of = [feature.name for feature in model.features]
                known = names(features) if names else []
                write_card(folder.path / "report.html", facts, history, given, figures, known, inputs_of)
            lines = "".join(json.dumps(line, allow_nan=False) + "\n" for line in history)
            (folder.path / "history.jsonl").write_text(lines, encoding="utf-8")
            model.cpu()
            model.save(folder.path, description(model, settings, schema))
            with step("Exporting TorchScript"):
                export_torchscript(model, folder.path / MODEL_PT, settings.exclude)
            folder.report.update(report)
    return report


def description(model: Model, settings: ModelSettings, schema: Any) -> dict[str, Any]:
    """What ``model.json`` says of a model beside its own settings, for evaluation and serving."""
    dtypes = {"categorical": "int64", "continuous": "float32", "embedding": "float32"}
    return {
        "format": 1,
        "architecture": settings.architecture,
        "masking": settings.objective,
        "inputs": [{"name": f.name, "dtype": dtypes[f.kind]} for f in model.features],
        "item": model.inputs.item.name,
        "max_sequence_length": model.max_sequence_length,
        "top_k": min(settings.top_k, model.catalogue_size),
        "catalogue_size": model.catalogue_size,
        "exclude": settings.exclude,
        "settings": settings.model_dump(mode="json"),
        "schema": json.loads(schema_to_json(schema)),
    }
