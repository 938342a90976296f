"""What a search found, as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.page.document import card, paragraph, section, table, tiles, write_page
from modeling.search.space import Dimension, distributions_of
from modeling.search.trials import Trial
from modeling.settings import ModelSettings

# Fewer say nothing of what matters.
_ENOUGH = 8
# Trials that are compared with all others: the best quarter.
_GOOD = 0.25


def write_page_of(
    path: Path,
    trials: Sequence[Trial],
    best: Trial,
    space: Mapping[str, Dimension],
    settings: ModelSettings,
    report: Mapping[str, Any],
) -> None:
    """Write a search as one self-contained page.

    Parameters
    ----------
    path : Path
        The HTML file.
    trials : sequence of Trial
        All of them, `best` among them.
    best : Trial
        The one whose settings are the result.
    space : mapping
        What was searched.
    settings : ModelSettings
        Of all else.
    report : mapping
        What `modeling.search.stage.search` reports.
    """
    from common.page.svg import style
    from modeling.search import plots

    valid = report["windows"]["valid"]
    counts = report["trials"]
    entries = [(f"NDCG@20 on {valid}, best trial", best.goal), ("NDCG@20, first trial", report["first"])]
    entries += [("trials", len(trials)), ("cut off", counts["pruned"]), ("failed", counts["failed"])]
    entries.append(("minutes", report["seconds"] / 60))
    words = (
        "The best of many trials looks better on the window that chose it than it is: 'nextitem evaluate' measures it "
        "on the test window, which the search has not read. Trials that differ by less than seeds do are equally good."
    )
    legend = (
        "Circles are whole trials, crosses those that were cut off; the ring is the best. What is far below the others "
        "is drawn at the lower edge."
    )
    with style():
        cards = [
            section("The best settings", "", _best(best, trials[0]), wide=False),
            card("history", "Trials", plots.history(trials, best), ["NDCG@20 on validation.", legend], []),
            card(
                "curves",
                "Epochs",
                plots.curves(trials, best),
                [
                    "NDCG@20 on validation after each epoch, of the network without counts. Grey trials fell behind "
                    "the median and were cut off."
                ],
                [],
            ),
            _importances(trials, space),
            *(
                card(f"slice{place}", name, plots.slice_of(name, one, _measured(trials), best), [], [])
                for place, (name, one) in enumerate(space.items())
            ),
        ]
    cards += [section("All trials", "", _exact(trials, list(space)), wide=True), _others(settings, space)]
    title = f"Search for settings: {settings.architecture}" if "architecture" not in space else "Search for settings"
    write_page(path, title, title, tiles(entries) + paragraph(words), cards)


def importances(trials: Sequence[Trial], space: Mapping[str, Dimension]) -> dict[str, float]:
    """What the best quarter of the trials has in common: a share a setting, of 1.

    PED-ANOVA (Watanabe, Bansal, Hutter: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces,
    IJCAI 2023). A trial that was cut off counts with the best it had. Empty where there are too few trials, or all
    are equally good.
    """
    import optuna

    known = [trial for trial in _measured(trials) if trial.same_as is None]
    if len(known) < _ENOUGH or len({trial.goal for trial in known}) < 2 or len(space) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    distributions = distributions_of(space)
    for trial in known:
        made = optuna.trial.create_trial(params=trial.settings, distributions=distributions, value=trial.goal)
        study.add_trial(made)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_GOOD)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _measured(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.goal is not None and trial.state != "failed"]


def _best(best: Trial, first: Trial) -> str:
    rows = [(name, shown(value), shown(first.settings[name])) for name, value in best.settings.items()]
    return table(f"Trial {best.number}, and the first", ("", "best", "first"), rows)


def _importances(trials: Sequence[Trial], space: Mapping[str, Dimension]) -> str:
    from modeling.search import plots

    found = importances(trials, space)
    if not found:
        return section("What mattered", f"Too few trials to tell: {_ENOUGH} or more are needed.", "")
    said = ["How far the best quarter of the trials differs from the others in each setting. A hint: trials are few."]
    rows = [(name, f"{share:.0%}") for name, share in found.items()]
    return card("importances", "What mattered", plots.importances(found), said, [table("Shares", ("", ""), rows)])


def _exact(trials: Sequence[Trial], names: Sequence[str]) -> str:
    header = ("trial", "NDCG@20", "outcome", "epochs", "seconds", *names)
    ordered = sorted(trials, key=lambda trial: (trial.state == "failed", -(trial.goal or 0.0), trial.number))
    rows = [
        (
            str(trial.number),
            "" if trial.goal is None else trial.goal,
            _outcome(trial),
            len(trial.curve) or "",
            f"{trial.seconds:,.1f}",
            *(shown(trial.settings[name]) for name in names),
        )
        for trial in ordered
    ]
    return table("The best first", header, rows)


def _outcome(trial: Trial) -> str:
    if trial.same_as is not None:
        return f"as trial {trial.same_as}"
    return f"failed: {trial.error}" if trial.state == "failed" else {"pruned": "cut off"}.get(trial.state, "whole")


def shown(value: Any) -> str:
    """A setting's value with all its digits."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _others(settings: ModelSettings, space: Mapping[str, Dimension]) -> str:
    rows = [(name, shown(value)) for name, value in settings.model_dump(mode="json").items() if name not in space]
    return card("settings", "Settings that stayed", None, [], [table("Every other", ("", ""), rows)])
