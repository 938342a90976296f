"""Transformers4Rec's side of `benchmarks.accuracy`: its model, trained and ranked as ours are.

The training stage's own loop (`modeling.fitting.fit`) and the one code of ranking (`modeling.evaluation.ranks`) run
here too, so the model is all that differs. What its evaluation does wrong cannot show: the last event of a session is
gone before the model is asked, dropout is off, and reserved codes are no items.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.t4r.inside.model import build, read
from benchmarks.t4r.process import answering
from benchmarks.t4r.schema import schema_of
from modeling.data import read_sessions
from modeling.evaluation import ranks
from modeling.fitting import fit
from modeling.padding import to_width
from modeling.ranking_metric import GOAL
from modeling.schema import Feature
from modeling.settings import ModelSettings


class Rival(nn.Module):
    """One of its models, with the face that our training loop and ranking know.

    Sessions are padded to one width in training as in use, for some of its architectures look at padding.

    Parameters
    ----------
    model : nn.Module
        Of Transformers4Rec.
    features : list of Feature
        Its inputs, the item first.
    limit : int
        The most events of a session, the one to predict among them.
    """

    def __init__(self, model: nn.Module, features: list[Feature], limit: int) -> None:
        super().__init__()
        self.model, self.features, self.max_sequence_length = model, features, limit
        self.inputs = SimpleNamespace(item=features[0])
        self.catalogue_size = features[0].cardinality - features[0].reserved

    def forward(self, columns: dict[str, Tensor], training: bool = False) -> Any:
        """The loss and the number of targets; or scores [B, cardinality] of what comes next, -inf for reserved ids."""
        width = self.max_sequence_length - (not training)
        batch = {
            feature.name: to_width(columns[feature.name], width) if feature.sequence else columns[feature.name]
            for feature in self.features
        }
        if training:
            found = self.model(batch, training=True)
            return {"loss": found["loss"], "targets": len(found["labels"])}
        scores = self.model(batch, training=False, testing=False)
        scores[:, : self.features[0].reserved] = float("-inf")
        return scores


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Train one model and rank the test window.

    Parameters
    ----------
    request : dict
        ``folder`` (the features), ``features`` (the records of the inputs, the item first), ``limit``, ``settings``.

    Returns
    -------
    dict
        ``ranks`` (a number a test session, in their order), ``valid``, ``seconds``, ``epochs`` (the best one).
    """
    torch.set_num_threads(1)
    known = [Feature(**record) for record in request["features"]]
    settings, limit, folder = ModelSettings(**request["settings"]), request["limit"], Path(request["folder"])
    torch.manual_seed(settings.seed)
    train, valid, test = (read_sessions(folder, window, known) for window in ("train", "valid", "test"))
    own = settings.model_dump() | {"masking": settings.objective}
    model = Rival(build(read(schema_of(known, limit)), limit, own), known, limit)
    device = torch.device("cpu")
    _, report = fit(model, train, valid, settings, device)  # type: ignore[arg-type]
    model.eval()
    found = ranks(model, test, known[0], limit, settings.exclude, device=device)
    return {
        "ranks": found.tolist(),
        "valid": report["valid"][GOAL],
        "seconds": report["train_seconds"],
        "epochs": report["best_epoch"],
    }


if __name__ == "__main__":
    answering(run)
