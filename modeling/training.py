"""The training stage: features/ in, model/ out.

``train(Path("features"), Path("model"), ModelSettings())`` builds the model from the schema, trains it with
early stopping on the validation window, and writes weights, description, TorchScript and history.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from common.artefacts import identity, new_folder, read_manifest
from common.days import day_identities
from common.errors import UserError
from common.progress import step
from modeling.compute import pick_device, threads
from modeling.data import Sessions, read_sessions
from modeling.evaluation import ranks
from modeling.export.torchscript import MODEL_PT, export_torchscript
from modeling.inputs.item_vectors import ItemVectors, read_vectors
from modeling.model import Model
from modeling.ranking_metric import summary
from modeling.report import measure, peak_mib, write_card
from modeling.schema import Feature, features_of, max_length_of, read_schema, schema_to_json
from modeling.settings import ModelSettings

GOAL = "ndcg@20"
_WARM_UP = 0.05
_CLIP = 1.0


def build_model(
    features: list[Feature],
    max_sequence_length: int,
    settings: ModelSettings,
    vectors: Mapping[str, Tensor] | None = None,
) -> Model:
    """The model that settings describe, with random weights.

    Parameters
    ----------
    features : list of Feature
        The inputs; side features are left out where the settings say so.
    max_sequence_length : int
        The most events of a session.
    settings : ModelSettings
        Architecture and sizes.
    vectors : mapping of str to Tensor [cardinality, width], optional
        Vectors that the items had before, by code: side features that training does not change.

    Raises
    ------
    UserError
        When the settings do not fit the architecture.
    """
    try:
        return _built(features, max_sequence_length, settings, vectors or {})
    except ValueError as error:
        raise UserError(f"model settings: {error}") from error


def _built(
    features: list[Feature], max_sequence_length: int, settings: ModelSettings, vectors: Mapping[str, Tensor]
) -> Model:
    from modeling.backbones.registry import transformer_registry
    from modeling.blocks.mlp import MLPBlock
    from modeling.inputs.features import TabularSequenceFeatures
    from modeling.tasks.next_item import NextItemPredictionTask

    if settings.features == "ids":
        features, vectors = [feature for feature in features if feature.item], {}
    width = settings.d_model
    inputs = TabularSequenceFeatures(
        features,
        max_sequence_length,
        continuous_projection=max(8, width // 4),
        projection=MLPBlock([width], activation=None) if len(features) > 1 or vectors else None,
        masking=settings.objective,
        masking_arguments=_masking_arguments(settings),
        embedding_dims={feature.name: width for feature in features if feature.item},
        infer_embedding_sizes=True,
        pretrained_output_dims=width if vectors else None,
        item_vectors={name: table.shape[1] for name, table in vectors.items()},
    )
    if vectors:
        cast(ItemVectors, inputs.to_merge["item_vectors_module"]).fill(vectors)
    config = transformer_registry[settings.architecture].build(
        width,
        settings.n_head,
        settings.n_layer,
        max_sequence_length,
        dropout=settings.dropout,
        initializer_range=0.02,
    )
    task = NextItemPredictionTask(
        loss=settings.loss, weight_tying=True, label_smoothing=settings.label_smoothing, output_bias=True
    )
    if inputs.projection is not None:
        # Begin with the item alone: side features earn their influence, instead of diluting the item's first.
        linear = cast(MLPBlock, inputs.projection).layers[0]
        assert isinstance(linear, nn.Linear)
        with torch.no_grad():
            linear.weight.normal_(std=0.02)
            linear.weight[:, inputs.item_slice()] = torch.eye(width)
            linear.bias.zero_()
    model: Model = config.to_torch_model(inputs, task)
    return model


def _masking_arguments(settings: ModelSettings) -> dict[str, Any] | None:
    """What the settings say to the objective."""
    if settings.objective == "clm":
        return None
    names = ["last_item_probability"]
    if settings.objective != "plm":
        names.append("mlm_probability")
    if settings.objective == "rtd":
        names += ["discriminator_loss_weight", "sample_from_batch"]
    return {name: getattr(settings, name) for name in names}


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
        "valid": {"recall@10": ..., ...}}``. The throughput counts time in training steps, not in validation.

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
        windows = {name: read_sessions(features, which, model.features) for name, which in chosen.items()}
        if model.catalogue_size < 1:
            raise UserError(f"{features} has no items to recommend")
        inputs = {"features": identity(features), **day_identities(features, [window, valid_window])}
        given = settings.model_dump(mode="json")
        with new_folder(output, "model", given, inputs) as folder:
            history, report = fit(model, windows["train"], windows["valid"], settings, device)
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


def _optimizer(model: nn.Module, settings: ModelSettings) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)


def _rate(progress: float) -> float:
    """Share of the highest learning rate, after this share of the run: a linear warm-up, then half a cosine."""
    if progress < _WARM_UP:
        return max(progress, 1e-3) / _WARM_UP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - _WARM_UP) / (1 - _WARM_UP))))


def fit(
    model: Model, train_sessions: Sessions, valid: Sessions, settings: ModelSettings, device: torch.device
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train in place and leave the best weights in the model.

    Returns
    -------
    list of dict
        A line an epoch: loss, throughput, validation metrics.
    dict
        The report that `train` returns.
    """
    item = model.inputs.item
    optimizer = _optimizer(model, settings)
    shuffle = torch.Generator().manual_seed(settings.seed)
    steps = math.ceil(len(train_sessions) / settings.batch_size) * settings.epochs
    history: list[dict[str, Any]] = []
    best: dict[str, Any] = {"epoch": 0, GOAL: -1.0}
    weights: dict[str, Tensor] = {}
    began, done, training_seconds = time.perf_counter(), 0, 0.0
    for epoch in range(1, settings.epochs + 1):
        model.train()
        total, targets, epoch_began, out_of_time = 0.0, 0, time.perf_counter(), False
        with step(f"Epoch {epoch}", len(train_sessions)) as bar:
            for chosen, columns in train_sessions.batches(settings.batch_size, model.max_sequence_length, shuffle):
                share = done / steps
                if settings.max_minutes:
                    spent = (time.perf_counter() - began) / (60 * settings.max_minutes)
                    share, out_of_time = max(share, spent), spent >= 1
                if out_of_time:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * _rate(share)
                result = model({name: value.to(device) for name, value in columns.items()}, training=True)
                done += 1
                if result["targets"]:
                    result["loss"].backward()
                    nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                    total += result["loss"].item() * result["targets"]
                    targets += result["targets"]
                bar.advance(len(chosen))
            seconds = time.perf_counter() - epoch_began
            training_seconds += seconds
            model.eval()
            found = ranks(model, valid, item, model.max_sequence_length, settings.exclude, device=device)
            metrics = summary(found[~found.isnan()])
            rate = len(train_sessions) / seconds if seconds else 0.0
            bar.say(f"loss {total / max(1, targets):.4f}, valid NDCG@20 {metrics[GOAL]:.4f}, {rate:,.0f} sessions/s")
        if not targets and not weights:
            raise UserError("no training session has a known item to predict: check the training window")
        line = {"epoch": epoch, "loss": total / max(1, targets), "sessions_per_s": rate, **metrics}
        history.append(line)
        if metrics[GOAL] > best[GOAL]:
            best = {**line}
            weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if out_of_time or epoch - best["epoch"] >= settings.patience:
            break
    model.load_state_dict(weights)
    report = {
        "architecture": settings.architecture,
        "masking": settings.objective,
        "parameters": sum(p.numel() for p in model.parameters()),
        "catalogue_size": model.catalogue_size,
        "sessions": len(train_sessions),
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "train_seconds": training_seconds,
        "train_sessions_per_s": len(train_sessions) * len(history) / training_seconds,
        "device": str(device),
        "valid": {name: value for name, value in best.items() if "@" in name},
    }
    return history, report
