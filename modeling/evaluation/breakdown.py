"""Figures by groups of sessions: by how much a model had seen, and by how popular the item was that came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modeling.evaluation.bootstrap import by_session, intervals

LENGTHS = {"1": 1, "2": 2, "3-4": 3, "5-9": 5, "10+": 10}
THIRDS = ("head", "mid", "tail")

Values = Mapping[str, Mapping[str, Tensor]]


def length_groups(seen: Tensor) -> Tensor:
    """Number of the group of `LENGTHS` for numbers of visible events [T]; -1 of none."""
    firsts = torch.tensor(list(LENGTHS.values()), device=seen.device)
    return torch.searchsorted(firsts, seen.contiguous(), right=True) - 1


def popularity_groups(train: Tensor, reserved: int) -> Tensor:
    """Number of the group of `THIRDS` for each item [cardinality].

    Items in descending order of their events in training: the head are those that begin within the first third of all
    events, the tail those that begin within the last. Equally popular items are in the same group.

    Parameters
    ----------
    train : Tensor [cardinality], int64
        Events of each id in training.
    reserved : int
        Ids below it are no items; they are put into the tail.
    """
    counts = train.clone()
    counts[:reserved] = 0
    ordered = counts.sort().values
    # Events of all items that are more popular than this one.
    up_to = torch.searchsorted(ordered, counts, right=True)
    total = counts.sum()
    more = total - torch.cat([total.new_zeros(1), ordered.cumsum(0)])[up_to]
    return (3 * more // total.clamp(min=1)).clamp(max=2).masked_fill(counts == 0, 2)


def figures(values: Values, session: Tensor | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """Means with intervals of all metrics of all models, from the same draws of sessions.

    Parameters
    ----------
    values : mapping of mapping of Tensor [T]
        A value a target, by model and metric, without NaN.
    session : Tensor [T], int64, optional
        The session of each target, where a session may have several: every target weighs the same, and sessions are
        drawn whole. Without it, every target is a session of its own.

    Returns
    -------
    dict
        ``{model: {metric: {"mean", "low", "high"}}}``.
    """
    flat = {(model, metric): value for model, metrics in values.items() for metric, value in metrics.items()}
    weights = None
    if session is not None:
        grouped = {name: by_session(value, session) for name, value in flat.items()}
        weights = next(iter(grouped.values()))[1]
        flat = {name: means for name, (means, _) in grouped.items()}
    found = intervals(flat, weights)
    return {model: {metric: found[model, metric] for metric in metrics} for model, metrics in values.items()}


def break_down(
    values: Values, groups: Tensor, names: tuple[str, ...], session: Tensor | None = None
) -> dict[str, dict[str, Any]]:
    """`figures` of each group.

    Parameters
    ----------
    values, session
        As for `figures`.
    groups : Tensor [T], int64
        The number of each target's group.
    names : tuple of str
        The groups.

    Returns
    -------
    dict
        ``{group: {"targets": number, "intervals": {model: {metric: {"mean", "low", "high"}}}}}``; groups without a
        target are left out.
    """
    found = {}
    for number, name in enumerate(names):
        of_group = groups == number
        if not bool(of_group.any()):
            continue
        own = {model: {m: value[of_group] for m, value in metrics.items()} for model, metrics in values.items()}
        owners = None if session is None else session[of_group]
        found[name] = {"targets": int(of_group.sum()), "intervals": figures(own, owners)}
    return found
