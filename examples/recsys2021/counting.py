"""Baselines that count, under the paper's protocol: fitted on all windows so far, measured on the next.

The paper's session-kNN rows come with settings that were searched for; these have their defaults. They are here to say
whether a model has learnt more than a table of counts on the same sessions.
"""

from __future__ import annotations

from torch import Tensor

from common.errors import UserError
from common.progress import step
from examples.recsys2021.incremental import Windows
from modeling.baselines import BASELINES, Popularity, TrainingWindow
from modeling.evaluation import ranks
from modeling.ranking_metric import summary


def check(names: list[str]) -> list[str]:
    """The names, if there are such baselines.

    Raises
    ------
    UserError
        Otherwise.
    """
    for name in names:
        if name not in BASELINES:
            raise UserError(f"--also {name}: must be of {', '.join(BASELINES)}")
    return names


def count(data: Windows, name: str, windows: list[int], half: str = "test", days: float = 1.0) -> dict[str, float]:
    """The average over time of a baseline's metrics.

    Parameters
    ----------
    data : Windows
        The sessions.
    name : str
        Of `modeling.baselines.BASELINES`.
    windows : list of int
        The windows that a model was trained on: the baseline is fitted on each of them and all before.
    half : {"test", "valid"}
        Which sessions of the next window to evaluate on.
    days : float
        Length of a window.

    Returns
    -------
    dict
        ``"ndcg@20"``, ``"recall@20"`` and so on.
    """
    item = next(feature for feature in data.features if feature.item)
    found: list[dict[str, float]] = []
    with step(f"{name}, fitted on all windows so far", len(windows)) as bar:
        for number in windows:
            so_far = data.number <= number
            # Sessions of one window count as of one age.
            times = data.number[so_far] * days
            window = TrainingWindow(data.sessions.where(so_far), item.name, item.cardinality, item.reserved, times)
            fitted = BASELINES[name](window)

            def scores(past: dict[str, Tensor], fitted: Popularity = fitted) -> Tensor:
                return fitted.scores(past[item.name])

            own = ranks(scores, data.half(number + 1, half), item, data.limit)
            found.append(summary(own[~own.isnan()]))
            bar.advance()
        means = {metric: sum(row[metric] for row in found) / len(found) for metric in found[0]}
        bar.say(f"NDCG@20 {means['ndcg@20']:.4f}")
    return means
