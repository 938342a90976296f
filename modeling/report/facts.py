"""What a model card tells: figures on the validation window, and sessions with what was recommended to them."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modeling.data import Sessions
from modeling.evaluation.breakdown import LENGTHS, break_down, figures, length_groups
from modeling.evaluation.scoring import last_items, ranks
from modeling.evaluation.stage import scorers_of
from modeling.model import Model
from modeling.ranking import best, strike
from modeling.ranking_metric import metrics_by_row
from modeling.sequence import without_last

KS = (10, 20)
EXAMPLES, SHOWN, PAST = 8, 5, 6


@dataclass(frozen=True)
class Example:
    """A session of the validation window.

    Attributes
    ----------
    past : list of int
        Codes of the items before the last, the most recent `PAST` of them.
    came : int
        Code of the last one.
    rank : float
        Of what came; infinite where it could not be recommended.
    recommended : list of int
        The best items, best first.
    """

    past: list[int]
    came: int
    rank: float
    recommended: list[int]


@dataclass(frozen=True)
class Figures:
    """A model on the validation window.

    Attributes
    ----------
    sessions : int
        Measured: of two events or more, with a last item that training knows.
    metrics : dict
        ``{"model" | "cooccurrence" | "popularity": {"ndcg@20": {"mean", "low", "high"}, ...}}``.
    by_length : dict
        As `modeling.evaluation.breakdown.break_down` gives it, by the events that were seen.
    examples : list of Example
        From the best prediction to the worst, evenly.
    """

    sessions: int
    metrics: dict[str, dict[str, dict[str, float]]]
    by_length: dict[str, Any]
    examples: list[Example]


def measure(model: Model, train: Sessions, valid: Sessions, exclude: str, device: torch.device) -> Figures | None:
    """Rank the validation window for the model and for two tables of counts; None where it has nothing to measure.

    Parameters
    ----------
    model : Model
        In evaluation mode, on `device`.
    train, valid : Sessions
        What the counts are of, and what is predicted.
    exclude : {"none", "last", "seen"}
        Items of the session that are not recommended.
    device : torch.device
        Of the model.
    """
    item, limit = model.inputs.item, model.max_sequence_length
    found = {
        name: ranks(scorer, valid, item, limit, exclude, device=where)
        for name, (scorer, where) in scorers_of(model, train, item).items()
    }
    measured = ~found["model"].isnan()
    if not bool(measured.any()):
        return None
    values = {name: metrics_by_row(own[measured], KS) for name, own in found.items()}
    targets = last_items(valid, item.name, limit)
    return Figures(
        int(measured.sum()),
        figures(values),
        break_down({"model": values["model"]}, length_groups(targets.seen)[measured], tuple(LENGTHS)),
        _examples(model, valid, found["model"], exclude, device),
    )


def _examples(model: Model, valid: Sessions, found: Tensor, exclude: str, device: torch.device) -> list[Example]:
    name = model.inputs.item.name
    known = (~found.isnan()).nonzero().squeeze(1)
    ordered = known[torch.sort(found[known], stable=True).indices]
    places = torch.linspace(0, len(ordered) - 1, min(EXAMPLES, len(ordered))).round().long().unique()
    chosen = ordered[places]
    columns = {key: value.to(device) for key, value in valid.padded(chosen, model.max_sequence_length).items()}
    with torch.inference_mode():
        past, target = without_last(columns, name, columns.keys() - valid.whole)
        _, recommended = best(strike(model(past), past[name], exclude), min(SHOWN, model.catalogue_size))
    rows = zip(past[name].tolist(), target.tolist(), found[chosen].tolist(), recommended.tolist(), strict=True)
    return [
        Example([code for code in seen if code][-PAST:], came, rank, [code for code in codes if code])
        for seen, came, rank, codes in rows
    ]


def peak_mib(device: torch.device) -> dict[str, float]:
    """The most memory that this process has held so far, MiB, and that the GPU has lent it."""
    # Kibibytes on Linux, bytes on a Mac.
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}
    if device.type == "cuda":
        found["gpu_peak_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return found


def named(codes: Sequence[int], names: Sequence[str]) -> list[str]:
    """Codes as people know them."""
    return [names[code] if code < len(names) else str(code) for code in codes]
