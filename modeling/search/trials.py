"""What came of each trial of a search, as Optuna's study keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class Trial:
    """What came of one choice of settings.

    Attributes
    ----------
    number : int
        From 1, in the order of their ends.
    state : str
        ``"complete"``, ``"pruned"`` (cut off) or ``"failed"``.
    settings : dict
        The values that were tried, of the searched settings alone.
    goal : float or None
        NDCG@20 on the validation window as training reports it, that is at the best epoch and with the evidence of
        counts, if that is among the settings; of a trial that was cut off, the best of `curve`.
    curve : list of float
        NDCG@20 of the network alone after each epoch; empty where the trial repeats `same_as`.
    seconds : float
        It took, validation included.
    error : str or None
        Why it failed.
    same_as : int or None
        The trial that had the same settings, whose outcome this one took over.
    """

    number: int
    state: str
    settings: dict[str, Any]
    goal: float | None
    curve: list[float]
    seconds: float
    error: str | None = None
    same_as: int | None = None


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The first of the best complete trials."""
    whole = [trial for trial in trials if trial.state == "complete"]
    return max(whole, key=lambda trial: (trial.goal or 0.0, -trial.number), default=None)


def ended(study: optuna.Study) -> list[Trial]:
    """The trials that came to an end of their own; others were interrupted."""
    known = study.get_trials(deepcopy=False, states=tuple(STATES))
    own = [trial for trial in known if trial.user_attrs.get("ended") == STATES[trial.state]]
    return [_trial(number, trial) for number, trial in enumerate(own, 1)]


def _trial(number: int, found: FrozenTrial) -> Trial:
    facts = found.user_attrs
    curve = facts.get("curve", [])
    goal = found.value if found.state == TrialState.COMPLETE else facts.get("goal", max(curve, default=None))
    state, seconds = STATES[found.state], facts.get("seconds", 0.0)
    return Trial(number, state, facts["settings"], goal, curve, seconds, facts.get("error"), facts.get("same_as"))
