"""How sure a figure is: intervals from resampling whole sessions, and paired differences.

The percentile bootstrap of Efron: as many sessions as there are, drawn with replacement; the figure of each draw; the
quantiles of these. The events of one session depend on each other, so a session is drawn whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

RESAMPLES = 1000
LEVEL = 0.95
# Draws held at once, so memory does not grow with sessions x resamples.
_DRAWS_AT_ONCE = 1 << 22

K = TypeVar("K", bound=Hashable)


def resampled(values: Tensor, weights: Tensor | None = None, resamples: int = RESAMPLES, seed: int = 0) -> Tensor:
    """Means of draws with replacement.

    Parameters
    ----------
    values : Tensor [S, M], float
        A row a session; all columns are of the same draws, so their differences are paired.
    weights : Tensor [S], optional
        Weight of each session in the mean, above 0: the number of its events, where `values` are means over these.
    resamples : int
        How many draws.
    seed : int
        Of the draws. The same seed and number of sessions give the same draws.

    Returns
    -------
    Tensor [resamples, M], float64
        The mean of each draw.
    """
    n = len(values)
    # The first row is taken off and put back: what is constant stays exactly what it is.
    first, values = values[:1].double(), values.double() - values[:1].double()
    heavy = torch.ones(n, dtype=torch.double) if weights is None else weights.double()
    columns = torch.cat([values * heavy[:, None], heavy[:, None]], 1)
    generator = torch.Generator().manual_seed(seed)
    means = []
    for begin in range(0, resamples, max(1, _DRAWS_AT_ONCE // n)):
        size = min(resamples - begin, max(1, _DRAWS_AT_ONCE // n))
        drawn = torch.randint(n, (size, n), generator=generator) + n * torch.arange(size)[:, None]
        times = torch.bincount(drawn.reshape(-1), minlength=size * n).reshape(size, n).double()
        sums = times @ columns
        means.append(sums[:, :-1] / sums[:, -1:])
    return torch.cat(means) + first


def intervals(
    values: Mapping[K, Tensor],
    weights: Tensor | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[K, dict[str, float]]:
    """Means over sessions with their intervals.

    Parameters
    ----------
    values : mapping of Tensor [S]
        A value a session, by name. Sessions with a NaN under any name are left out.
    weights : Tensor [S], optional
        As for `resampled`.
    resamples, seed
        As for `resampled`.
    level : float
        Share of the draws within the interval.

    Returns
    -------
    dict
        ``{"mean", "low", "high"}`` by name.

    Raises
    ------
    ValueError
        When no session is left.
    """
    table = torch.stack([value.double() for value in values.values()], 1)
    measured = ~table.isnan().any(1)
    if not bool(measured.any()):
        raise ValueError("there is no session to measure")
    table = table[measured]
    heavy = torch.ones(len(table), dtype=torch.double) if weights is None else weights[measured].double()
    # As in `resampled`: exact for a constant.
    means = table[0] + ((table - table[0]) * heavy[:, None]).sum(0) / heavy.sum()
    draws = resampled(table, heavy, resamples, seed)
    ends = torch.quantile(draws, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.double), dim=0)
    rows = torch.cat([means[None], ends]).T.tolist()
    return {name: dict(zip(("mean", "low", "high"), row, strict=True)) for name, row in zip(values, rows, strict=True)}


def paired(
    one: Tensor,
    other: Tensor,
    weights: Tensor | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, float]:
    """How much better one model is than another on the same sessions.

    Much narrower than two intervals side by side, as both models find the same sessions hard.

    Parameters
    ----------
    one, other : Tensor [S]
        A metric's value a session, in the same order. Sessions with a NaN in either are left out.
    weights, resamples, seed, level
        As for `intervals`.

    Returns
    -------
    dict
        ``{"mean", "low", "high"}`` of `one` minus `other`; without 0 between `low` and `high`, the difference is
        more than chance among sessions. Other seeds of training are another source of chance: see `across_seeds`.

    Raises
    ------
    ValueError
        When the two are not of the same sessions, or no session is left.
    """
    if one.shape != other.shape:
        raise ValueError(f"paired values must be of the same sessions: {len(one)} and {len(other)} do not fit")
    return intervals({"": one.double() - other.double()}, weights, resamples, seed, level)[""]


def across_seeds(
    runs: Sequence[Tensor], resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> dict[str, float]:
    """A metric of the same model trained with several seeds.

    Parameters
    ----------
    runs : sequence of Tensor [S]
        A value a session, a tensor a training run.
    resamples, seed, level
        As for `intervals`.

    Returns
    -------
    dict
        ``{"mean", "low", "high", "spread", "runs"}``: the mean of all runs with its interval over sessions, the
        standard deviation between runs (n - 1; 0 of a single one), and their number.
    """
    table = torch.stack([run.double() for run in runs], 1)
    found = intervals({"": table.mean(1)}, None, resamples, seed, level)[""]
    means = table[~table.isnan().any(1)].mean(0)
    spread = float(means.std()) if len(runs) > 1 else 0.0
    return {**found, "spread": spread, "runs": len(runs)}


def by_session(values: Tensor, session: Tensor) -> tuple[Tensor, Tensor]:
    """From values of targets to those of their sessions.

    Parameters
    ----------
    values : Tensor [T]
        A value a target.
    session : Tensor [T], int64
        The session of each.

    Returns
    -------
    Tensor [U], float64
        The mean of each session that has a target, in ascending order.
    Tensor [U], int64
        Its targets: with these as weights, the mean over sessions is that over targets.
    """
    _, index, counts = torch.unique(session, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), dtype=torch.double).index_add_(0, index, values.double())
    return sums / counts, counts
