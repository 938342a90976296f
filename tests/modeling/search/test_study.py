"""The search on objectives whose best settings are known: what it finds, and that it goes on where it stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from modeling.ranking_metric import GOAL
from modeling.search import study
from modeling.search.page import importances
from modeling.search.space import Dimension, Range
from modeling.search.study import Search
from modeling.search.trials import Trial, best_of
from modeling.settings import ModelSettings

SPACE: dict[str, Dimension] = {"dropout": Range(low=0.0, high=0.8), "d_model": (32, 64)}
BASE = ModelSettings(epochs=4, dropout=0.75)
IDENTITY = {"features": "a", "seed": 0}
Objective = Callable[[ModelSettings, Callable[[dict[str, Any]], None]], dict[str, Any]]


def quality(settings: ModelSettings) -> float:
    """Best at a dropout of 0.3 and the narrow model."""
    return 0.9 - abs(settings.dropout - 0.3) - (0.05 if settings.d_model == 64 else 0.0)


def learn(settings: ModelSettings, on_epoch: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Comes closer to its quality with every epoch."""
    for epoch in range(1, settings.epochs + 1):
        on_epoch({"epoch": epoch, "loss": 1 / epoch, GOAL: quality(settings) * epoch / settings.epochs})
    return {"valid": {GOAL: quality(settings)}}


def run(path: Path, trials: int, objective: Objective = learn, space: Any = SPACE, **options: Any) -> list[Trial]:
    identity = options.pop("identity", IDENTITY)
    return Search(path, space, options.pop("base", BASE), 0, identity).run(objective, trials, **options)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    return run(tmp_path_factory.mktemp("study") / "journal.log", 20)


def same(one: list[Trial], other: list[Trial]) -> bool:
    """But for the seconds."""
    return [(t.number, t.state, t.settings, t.goal, t.curve) for t in one] == [
        (t.number, t.state, t.settings, t.goal, t.curve) for t in other
    ]


def test_the_first_trial_has_the_settings_that_were_there(found: list[Trial]) -> None:
    assert found[0].settings == {"dropout": 0.75, "d_model": 64}
    assert found[0].goal == pytest.approx(quality(BASE))
    assert found[0].curve == pytest.approx([quality(BASE) * share / 4 for share in (1, 2, 3, 4)])


def test_it_comes_near_the_best_settings(found: list[Trial]) -> None:
    best = best_of(found)
    assert best is not None
    assert best.goal is not None
    assert best.goal > 0.8
    assert best.goal == max(trial.goal or 0 for trial in found if trial.state == "complete")
    assert best.goal == pytest.approx(quality(ModelSettings(**best.settings)))


def test_trials_behind_the_median_are_cut_off(found: list[Trial]) -> None:
    cut = [trial for trial in found if trial.state == "pruned"]
    assert cut
    assert all(trial.number > study._UNCUT for trial in cut)
    assert all(study._WARM_UP <= len(trial.curve) < BASE.epochs for trial in cut)
    assert all(trial.goal == max(trial.curve) for trial in cut)


def test_settings_are_short_numbers_inside_their_range(found: list[Trial]) -> None:
    for trial in found:
        assert 0 <= trial.settings["dropout"] <= 0.8
        assert float(f"{trial.settings['dropout']:.4g}") == trial.settings["dropout"]


def test_what_mattered_is_found(found: list[Trial]) -> None:
    shares = importances(found, SPACE)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["dropout"] > shares["d_model"]
    assert importances(found[:5], SPACE) == {}


@pytest.mark.parametrize("how", ["between", "within", "killed"])
def test_an_interrupted_search_finds_what_it_would_have_found(found: list[Trial], tmp_path: Path, how: str) -> None:
    path = tmp_path / "journal.log"
    if how == "between":
        run(path, 9)
    else:
        count = 0

        def interrupted(settings: ModelSettings, on_epoch: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
            nonlocal count
            count += 1
            if count == 9:
                on_epoch({"epoch": 1, "loss": 1.0, GOAL: 0.9})
                raise KeyboardInterrupt
            return learn(settings, on_epoch)

        with pytest.raises(KeyboardInterrupt):
            run(path, 20, interrupted)
    if how == "killed":
        # In the middle of a line, with Optuna's own lock left behind.
        with path.open("ab") as stream:
            stream.write(b'{"op_code": 6, "wor')
        Path(f"{path}.lock").symlink_to(path)
    asked = []

    def counted(settings: ModelSettings, on_epoch: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        asked.append(settings)
        return learn(settings, on_epoch)

    assert same(run(path, 20, counted), found)
    done = 9 if how == "between" else 8
    assert len(asked) == sum(trial.same_as is None for trial in found[done:])
    assert same(run(path, 20, counted), found)
    assert len(asked) == sum(trial.same_as is None for trial in found[done:])


def test_a_search_that_is_interrupted_in_its_first_trial_begins_with_it_again(tmp_path: Path) -> None:
    def interrupted(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "j", 3, interrupted)
    assert run(tmp_path / "j", 1)[0].settings == {"dropout": 0.75, "d_model": 64}


def test_bad_trials_are_recorded_and_do_not_end_the_search(tmp_path: Path) -> None:
    errors = iter([UserError("no"), MemoryError("no room"), RuntimeError("tensor\nerror"), None, None])

    def moody(settings: ModelSettings, on_epoch: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        if (error := next(errors)) is not None:
            raise error
        return learn(settings, on_epoch)

    found = run(tmp_path / "j", 5, moody)
    assert [trial.state for trial in found] == ["failed"] * 3 + ["complete"] * 2
    assert [trial.error for trial in found[:3]] == ["no", "MemoryError: no room", "RuntimeError: tensor error"]
    assert [trial.goal for trial in found[:3]] == [None] * 3


def test_settings_that_do_not_fit_together_are_such_trials(tmp_path: Path) -> None:
    space: dict[str, Dimension] = {"n_head": (3, 4), "d_model": (48, 64)}
    found = run(tmp_path / "j", 12, space=space)
    for trial in found:
        fits = trial.settings["d_model"] % trial.settings["n_head"] == 0
        assert (trial.state == "failed") == (not fits)
        assert ("must divide" in (trial.error or "")) == (not fits)


def test_when_everything_fails_the_search_says_why(tmp_path: Path) -> None:
    def fail(*_: Any) -> dict[str, Any]:
        raise UserError("the shelf is empty")

    with pytest.raises(UserError, match="all of the first 5 trials failed; the last one: the shelf is empty"):
        run(tmp_path / "j", 20, fail)


def test_the_same_settings_are_not_trained_twice(tmp_path: Path) -> None:
    asked = []

    def counted(settings: ModelSettings, on_epoch: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        asked.append(settings.d_model)
        return learn(settings, on_epoch)

    found = run(tmp_path / "j", 8, counted, space={"d_model": (32, 64)})
    assert sorted(asked) == [32, 64]
    assert len(found) == 8
    for trial in found:
        if trial.same_as is not None:
            first = found[trial.same_as - 1]
            assert (trial.settings, trial.state, trial.goal) == (first.settings, first.state, first.goal)


def test_time_ends_the_search_and_the_trial_under_way_is_begun_again(tmp_path: Path) -> None:
    asked = []

    def patient(settings: ModelSettings, on_epoch: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        asked.append(settings)
        return learn(settings, on_epoch)

    assert run(tmp_path / "j", 3, patient, minutes=1e-9) == []
    assert len(asked) <= 1
    assert [trial.number for trial in run(tmp_path / "j", 3, patient)] == [1, 2, 3]
    assert asked[-3].dropout == 0.75


def test_another_search_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "j", 1)
    with pytest.raises(UserError, match="is of a search with other features: name another --output"):
        run(tmp_path / "j", 2, identity={"features": "b", "seed": 0})


def test_a_journal_in_use_is_refused(tmp_path: Path) -> None:
    def nested(settings: ModelSettings, on_epoch: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        with pytest.raises(UserError, match="is in use: another search writes there"):
            run(tmp_path / "j", 1)
        return learn(settings, on_epoch)

    assert run(tmp_path / "j", 1, nested)[0].state == "complete"
