"""How well the next item is found: our models beside the baselines that must be beaten, on the same split.

    python -m benchmarks.accuracy examples/eshop_clothing_2008.yaml [--data-root FOLDER] [--models accurate,xlnet:mlm]
                                  [--seeds 0,1,2] [--epochs N] [--minutes M] [--with-t4r [MODELS]] [--output FOLDER]
                                  [--json]

The data set is preprocessed as its YAML says. For the last item of each test session the whole catalogue is ranked, by
one code for all (`modeling.evaluation.ranks`); what the YAML's ``model.exclude`` names is struck, and sessions whose
last item training never saw are left out. Baselines (`modeling.baselines`) are fitted on the training window with each
of a few settings, of which the validation window chooses. Models are trained with the YAML's settings, once a seed, and
stopped early by the validation window, and shown without and with the counts that ``nextitem train`` adds to them;
presets (``accurate``, ``fast``) are models too. gru4rec is the recurrent network of the literature. ``--with-t4r`` adds
Transformers4Rec 23.12, GPT-2 causal and XLNet masked, and GPT-2 as wide and trained as long as our ``accurate``, with
item ids alone and with side features: its models in an environment of its own (`benchmarks.t4r`), in the same training
loop and ranked by the same code; or some of them.

Intervals are 95%, by resampling sessions. The differences of NDCG@20 and MRR@20 to the baseline that is best on
validation, and to the best model of Transformers4Rec, are paired by session; a star says that they are more than chance
among sessions. Of several seeds the table has the mean, and the standard deviation between them. Writes ``NAME.json``
and ``NAME.html`` into the output folder, and each training run into its ``runs``: a run that is there is not made
again, so the same command goes on after an interruption, and one with more models or seeds adds to the table. Remove
the folder when the code of the models has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small matrices

import torch

from benchmarks.accuracy_ import contenders, t4r
from benchmarks.accuracy_.data import prepare
from benchmarks.accuracy_.kept import Kept
from benchmarks.accuracy_.page import write
from benchmarks.accuracy_.summary import METRICS, comparisons, measured, rows_of, settings_of
from common.display import show_json, show_line, show_table
from common.errors import UserError
from common.progress import say
from modeling.baselines import BASELINES
from modeling.ranking_metric import GOAL
from pipeline import Run, load_run

MODELS = ("accurate", "fast", "gpt2", "xlnet:mlm", contenders.GRU4REC)


def compare(
    dataset: Run,
    models: list[str],
    baselines: list[str],
    seeds: list[int],
    resamples: int = 1000,
    with_t4r: Sequence[str] = (),
    epochs: int | None = None,
    runs: Path | None = None,
) -> dict[str, Any]:
    """Fit and measure all contenders.

    Parameters
    ----------
    dataset : Run
        The data set, and the settings of the models.
    models : list of str
        See `benchmarks.accuracy_.contenders.model`.
    baselines : list of str
        Names of `modeling.baselines.BASELINES`; at least one.
    seeds : list of int
        Of the models.
    resamples : int
        Of the bootstrap.
    with_t4r : sequence of str
        The models of Transformers4Rec that take part: of `benchmarks.accuracy_.t4r.SPECS`.
    epochs : int, optional
        At most so many for all models, presets too.
    runs : Path, optional
        Where finished training runs are kept, and read from.

    Returns
    -------
    dict
        ``{"name", "exclude", "seeds", "items", "sessions", "left_out", "rows"}``: see
        `benchmarks.accuracy_.summary.rows_of`.

    Raises
    ------
    UserError
        When the events cannot be used, or there is no such contender.
    """
    for name in baselines:
        if name not in BASELINES:
            raise UserError(f"--baselines {name}: must be of {', '.join(BASELINES)}")
    for spec in with_t4r:
        if spec not in t4r.SPECS:
            raise UserError(f"--with-t4r {spec}: must be of {', '.join(t4r.SPECS)}")
    settings = {spec: contenders.runs_of(spec, dataset.model, seeds, epochs) for spec in models}
    with TemporaryDirectory() as scratch:
        features = Path(scratch) / "features"
        data = prepare(dataset, features)
        found = [contenders.baseline(name, data, dataset.model.exclude) for name in baselines]
        results = [result for result in found if result is not None]
        if not results:
            raise UserError("--baselines: at least one is needed, to be compared with")
        if not measured(results[0])["sessions"]:
            raise UserError(f"{dataset.name}: no test session's last item occurs in training: change split")
        kept = Kept(runs, data)
        results += [found for spec, own in settings.items() for found in contenders.model(spec, data, own, kept)]
        if with_t4r:
            results += t4r.contenders(data, features, dataset.model, seeds, with_t4r, kept)
    return {
        "name": dataset.name,
        "exclude": dataset.model.exclude,
        "seeds": seeds if models or with_t4r else [],
        "items": data.item.cardinality - data.item.reserved,
        **measured(results[0]),
        "rows": rows_of(results, resamples),
    }


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    seeds = len(result["seeds"]) > 1
    compared = comparisons(result["rows"][0])
    header = ("", "NDCG@20", "95%", *(("spread",) if seeds else ()), *METRICS[1:], *compared, "fit s")
    rows = []
    for row in result["rows"]:
        goal = row["metrics"][GOAL]
        cells = [row["model"], goal["mean"], f"{goal['low']:.4f}-{goal['high']:.4f}"]
        if seeds:
            cells.append(f"{goal['spread']:.4f}" if goal["runs"] > 1 else "")
        cells += [row["metrics"][name]["mean"] for name in METRICS[1:]]
        rows.append([*cells, *comparisons(row).values(), f"{row['seconds']:.1f}"])
    show_table(f"{result['name']}: last item of held-out sessions, whole catalogue ranked", header, rows)
    chosen = "; ".join(f"{row['model']} ({settings_of(row)})" for row in result["rows"] if row["chosen"])
    if chosen:
        show_line(f"Chosen by validation: {chosen}")
    show_line(
        f"{result['sessions']:,} sessions, {result['items']:,} items; struck: {result['exclude']}. "
        f"{result['left_out']:,} sessions whose last item training never saw are left out."
    )


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="description of the data set")
    parser.add_argument("--data-root", type=Path, help="folder of the event files; the YAML's otherwise")
    parser.add_argument(
        "--models", default=",".join(MODELS), help="architecture[:masking], a preset, or gru4rec; '' for none"
    )
    parser.add_argument("--baselines", default=",".join(contenders.DEFAULT), help="which baselines")
    parser.add_argument("--seeds", default="0", help="of the models, such as 0,1,2")
    parser.add_argument("--epochs", type=int, help="at most so many, instead of the YAML's number")
    parser.add_argument("--minutes", type=float, help="stop the training of each model then")
    parser.add_argument(
        "--with-t4r",
        nargs="?",
        const=",".join(t4r.SPECS),
        default="",
        metavar="MODELS",
        help=f"Transformers4Rec 23.12 too, installed on first use: all of {', '.join(t4r.SPECS)}, or some",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a setting of the YAML")
    parser.add_argument("--output", type=Path, default=Path("accuracy"), help="folder for the JSON and the page")
    parser.add_argument("--json", action="store_true", help="machine-readable results on standard output")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for key, value in (("epochs", options.epochs), ("max_minutes", options.minutes)):
        if value is not None:
            options.set.append(f"model.{key}={value}")
    try:
        if not all(seed.isdigit() for seed in _listed(options.seeds)) or not _listed(options.seeds):
            raise UserError(f"--seeds {options.seeds}: write whole numbers, such as 0,1,2")
        seeds = [int(seed) for seed in _listed(options.seeds)]
        run = load_run(options.dataset, options.data_root, options.set)
        result = compare(
            run,
            _listed(options.models),
            _listed(options.baselines),
            seeds,
            with_t4r=_listed(options.with_t4r),
            epochs=options.epochs,
            runs=options.output / "runs",
        )
    except UserError as error:
        sys.exit(f"error: {error}")
    options.output.mkdir(parents=True, exist_ok=True)
    page = options.output / f"{run.name}.html"
    page.with_suffix(".json").write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    write(page, result)
    if options.json:
        show_json(result)
    else:
        show(result)
        say(f"{page} has the same as pictures")


if __name__ == "__main__":
    main()
