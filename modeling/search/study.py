"""The search itself: trials one after the other, each written down as it ends, so that a search can go on.

Settings are proposed by the tree-structured Parzen estimator (Bergstra et al., Algorithms for Hyper-Parameter
Optimization, 2011); trials that are behind the median of the others at the same epoch are cut off. Proposals depend on
the seed and on the trials that ended, and on nothing else: so an interruption does not change what is found.
"""

from __future__ import annotations

import fcntl
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from common.errors import UserError
from common.progress import Bar, quietly, say, step
from common.settings import validate
from modeling.ranking_metric import GOAL
from modeling.search.space import Dimension, Range, distributions_of, inside
from modeling.search.trials import STATES, Trial, best_of, ended
from modeling.settings import ModelSettings

# Trials at random before the estimator proposes, and whole ones before any is cut off.
_AT_RANDOM, _UNCUT = 8, 4
# Epochs that every trial has: the first ones say little.
_WARM_UP = 2
# As many failures without a success mean that something else is wrong.
_HOPELESS = 5
_DIGITS = 4

OnEpoch = Callable[[dict[str, Any]], None]
Objective = Callable[[ModelSettings, OnEpoch], Mapping[str, Any]]


class _OutOfTime(Exception):
    """The search's time is over within a trial."""


class Search:
    """A search in a journal file.

    Parameters
    ----------
    journal : Path
        Made where it is missing; where it is there, the search in it goes on.
    space : mapping
        What may change, and in which ranges.
    base : ModelSettings
        All other settings. Their own values, where the space has them, are the first trial.
    seed : int
        Of the proposals.
    identity : mapping
        JSON of what the trials depend on besides: they can be compared only if it is the same.
    """

    def __init__(
        self, journal: Path, space: Mapping[str, Dimension], base: ModelSettings, seed: int, identity: Mapping[str, Any]
    ) -> None:
        self.journal, self.space, self.base, self.seed = journal, space, base, seed
        # As JSON gives it back.
        self.identity = json.loads(json.dumps(identity))
        self._distributions = distributions_of(space)

    def run(self, objective: Objective, trials: int, minutes: float | None = None) -> list[Trial]:
        """Try settings until there are as many trials, or time is over.

        Parameters
        ----------
        objective : callable
            Trains with settings and tells each epoch; returns a report with ``valid``, metrics by name.
        trials : int
            How many in all, those included that the journal has already.
        minutes : float, optional
            No longer than this. A trial under way then ends with its epoch; it is begun anew when the search goes on.

        Returns
        -------
        list of Trial
            All that ended.

        Raises
        ------
        UserError
            When the journal is of another search or in use, or when every trial fails.
        """
        ends = time.monotonic() + 60 * minutes if minutes else float("inf")
        with _held(self.journal), warnings.catch_warnings():
            # Optuna calls half of what it has experimental.
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            study = self._open()
            found = ended(study)
            if found and len(found) < trials:
                say(f"{self.journal} has {len(found)} of {trials} trials: the search goes on")
            while len(found) < trials and time.monotonic() < ends:
                if not self._one(study, found, objective, trials, ends):
                    break
                found = ended(study)
                if len(found) >= _HOPELESS and all(trial.state == "failed" for trial in found):
                    raise UserError(f"all of the first {len(found)} trials failed; the last one: {found[-1].error}")
        return found

    def _open(self) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            study_name="search",
            storage=JournalStorage(JournalFileBackend(str(self.journal))),
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_UNCUT, n_warmup_steps=_WARM_UP),
            load_if_exists=True,
        )
        known = study.user_attrs.get("identity")
        if known is None:
            study.set_user_attr("identity", self.identity)
        elif known != self.identity:
            other = [name for name in {**known, **self.identity} if known.get(name) != self.identity.get(name)]
            raise UserError(
                f"{self.journal} is of a search with other {', '.join(other)}: name another --output, or remove it"
            )
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
        if not ended(study) and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.enqueue_trial(inside(self.space, self.base))
        return study

    def _one(self, study: optuna.Study, found: list[Trial], objective: Objective, trials: int, ends: float) -> bool:
        """One trial; false where time ended it."""
        number = len(found) + 1
        # By number, not by a state that an interruption would lose.
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=_AT_RANDOM, multivariate=True, constant_liar=False, seed=seed
        )
        trial = study.ask(self._distributions)
        chosen = {name: _rounded(value, self.space[name]) for name, value in trial.params.items()}
        trial.set_user_attr("settings", chosen)
        same = next((one for one in found if one.settings == chosen), None)
        if same is not None:
            _repeat(study, trial, same)
            say(f"Trial {number} of {trials}: the same settings as trial {same.number}")
            return True
        curve: list[float] = []
        began = time.perf_counter()
        state, goal, told = TrialState.FAIL, None, ""
        with step(f"Trial {number} of {trials}", self.base.epochs) as bar, quietly():
            try:
                settings = validate(self.base.model_dump() | chosen, ModelSettings, "these settings")
                report = objective(settings, _Watch(trial, curve, bar, settings.epochs, ends))
                state, goal = TrialState.COMPLETE, float(report["valid"][GOAL])
                told = f"NDCG@20 {goal:.4f}"
            except optuna.TrialPruned:
                state, told = TrialState.PRUNED, f"cut off at NDCG@20 {max(curve):.4f}"
            except _OutOfTime:
                bar.say("time is over")
                study.tell(trial, state=TrialState.FAIL)
                return False
            # torch tells all its errors as RuntimeError, memory that it cannot get among them.
            except (UserError, MemoryError, RuntimeError) as error:
                told = _in_a_line(error)
                trial.set_user_attr("error", told)
            trial.set_user_attr("curve", curve)
            trial.set_user_attr("seconds", time.perf_counter() - began)
            trial.set_user_attr("ended", STATES[state])
            study.tell(trial, goal, state)
            bar.say(f"{told} with {_listed(chosen)}{_so_far(found)}")
        return True


@dataclass(frozen=True)
class _Watch:
    """Sees each epoch of a trial, and ends it where it is behind the others or the time is over."""

    trial: optuna.Trial
    curve: list[float]
    bar: Bar
    epochs: int
    ends: float

    def __call__(self, line: dict[str, Any]) -> None:
        self.curve.append(float(line[GOAL]))
        self.bar.advance(1)
        self.bar.say(f"epoch {line['epoch']}: loss {line['loss']:.4f}, valid NDCG@20 {self.curve[-1]:.4f}")
        self.trial.report(self.curve[-1], int(line["epoch"]))
        if line["epoch"] >= self.epochs:
            return
        if time.monotonic() >= self.ends:
            raise _OutOfTime
        if self.trial.should_prune():
            raise optuna.TrialPruned


def _repeat(study: optuna.Study, trial: optuna.Trial, same: Trial) -> None:
    """Settings fix the outcome, so the same need not be trained twice."""
    trial.set_user_attr("same_as", same.number)
    trial.set_user_attr("goal", same.goal)
    trial.set_user_attr("error", same.error)
    trial.set_user_attr("ended", same.state)
    state = next(state for state, name in STATES.items() if name == same.state)
    study.tell(trial, same.goal if state == TrialState.COMPLETE else None, state)


def _rounded(value: Any, dimension: Dimension) -> Any:
    """A number that a person can copy; nobody needs the tenth digit of a dropout."""
    if not isinstance(value, float) or not isinstance(dimension, Range):
        return value
    return min(max(float(f"{value:.{_DIGITS}g}"), dimension.low), dimension.high)


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )


def _so_far(found: list[Trial]) -> str:
    best = best_of(found)
    return f" (before: {best.goal:.4f} of trial {best.number})" if best else ""


def _in_a_line(error: Exception) -> str:
    name = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return name + " ".join(str(error).split())[:300]


@contextmanager
def _held(journal: Path) -> Iterator[None]:
    """Keep the journal to ourselves, and mend what a killed process left of it."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{journal} is in use: another search writes there; name another --output") from error
        # Optuna's own lock is a link, which outlives its process.
        Path(f"{journal}.lock").unlink(missing_ok=True)
        stream.seek(0)
        content = stream.read()
        # A line that was cut off would spoil those that follow.
        stream.truncate(content.rfind(b"\n") + 1)
        yield
