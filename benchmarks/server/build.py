"""Make everything that a catalogue needs, in a process that ends and gives its memory back.

    python -m benchmarks.server.build FOLDER ITEMS [--no-stock] [--no-counts]

Writes the events, ``features/`` (by the preprocessing stage), ``model/`` (random weights, nothing is trained), the
fitted stock workflow and, when all of it is there, ``made.json``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.server import FEATURES, MADE, MODEL_FOLDER, STOCK_WORKFLOW, TOP_K
from benchmarks.server.data import make, training_events
from benchmarks.server.workflow import fit
from common.artefacts import identity, new_folder
from common.errors import UserError
from common.progress import say, step
from modeling.baselines import TrainingWindow
from modeling.construction import build_model
from modeling.data import read_sessions
from modeling.evidence.fitting import heaviest
from modeling.evidence.module import ItemEvidence
from modeling.evidence.pairs import count_pairs
from modeling.export.torchscript import MODEL_PT, export_torchscript
from modeling.schema import Feature, features_of, max_length_of, read_schema
from modeling.settings import ModelSettings
from modeling.training import description
from preprocessing.preprocess import load_workflow, preprocess

# Of the counts: about what is learned on the shops of the accuracy table.
DECAY, BEGIN = 0.7, 0.02


def untrained(features: Path, output: Path, counts: bool) -> None:
    """Write a model folder with random weights, of the sizes that the issue names: width 64, 2 layers, 4 heads."""
    settings = ModelSettings(d_model=64, n_layer=2, n_head=4, top_k=TOP_K, dropout=0.0)
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    schema = read_schema(features)
    model = build_model(features_of(schema), max_length_of(schema), settings).eval()
    if counts:
        model.evidence = counted(features, model.inputs.item)
    with new_folder(output, "model", settings.model_dump(mode="json"), {"features": identity(features)}) as folder:
        model.save(folder.path, description(model, settings, schema))
        export_torchscript(model, folder.path / MODEL_PT, settings.exclude)


def counted(features: Path, item: Feature) -> ItemEvidence:
    """The pairs of the training window, with weights of the form that ``nextitem train`` learns."""
    train = read_sessions(features, "train", [item])
    pairs = count_pairs(TrainingWindow(train, item.name, item.cardinality, item.reserved))
    return heaviest(pairs, torch.log1p(pairs.kinds / BEGIN).sum(1), item.cardinality, DECAY)


def build(folder: Path, items: int, stock: bool = True, counts: bool = True) -> None:
    """Make everything; see the module."""
    with step(f"Making the events of {items:,} items"):
        dataset = make(folder, items)
    features = folder / FEATURES
    preprocess(dataset, features)
    with step("Making a model with random weights"):
        untrained(features, folder / MODEL_FOLDER, counts)
    if stock:
        with step("Fitting the stock workflow"), tempfile.TemporaryDirectory() as scratch:
            workflow = fit(load_workflow(features), training_events(folder, dataset), Path(scratch))
            workflow.save(str(folder / STOCK_WORKFLOW))
    (folder / MADE).write_text(json.dumps({"items": items, "stock": stock, "counts": counts}))


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]), int(sys.argv[2]), "--no-stock" not in sys.argv, "--no-counts" not in sys.argv)
    except UserError as mistake:
        say(str(mistake))
        sys.exit(mistake.exit_code)
