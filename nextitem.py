"""The command line of nextitem: raw events in, next-item recommendations out.

Each command is a typed function that Python can call as well: it returns a dict, and only the command line prints.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

import screens
from commands.options import DAYS, Cluster, Config, DataRoot, Features, Model, Models, Preset, Set, Yaml, numbers
from commands.register import command
from commands.serving import app as serving_app
from commands.serving import deploy, health, loadtest, playground, recommend, rollback, route, serve
from common.display import show_facts
from common.errors import UserError
from pipeline import load_run, load_settings, run_pipeline
from serving.settings import Backend

warnings.filterwarnings("ignore", message="The pynvml package is deprecated")

__all__ = [
    "app", "demo", "deploy", "evaluate", "export", "health", "load_run", "loadtest", "main", "playground", "preprocess",
    "recommend", "rollback", "route", "run", "search", "serve", "train",
]  # fmt: skip

_MODELS = [Path("model")]

app = typer.Typer(
    help="Raw events in, next-item recommendations out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@command(app, screens.show_demo)
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the events and everything made of them.")] = Path("demo"),
    sessions: Annotated[int, typer.Option(help="Sessions to simulate.", min=200)] = 50_000,
    items: Annotated[int, typer.Option(help="Items in the simulated catalogue.", min=100)] = 1_000,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training window; the YAML's otherwise.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the shop and of the model.")] = 7,
) -> dict[str, Any]:
    """Simulate a shop, prepare, train, evaluate, serve with Triton, ask and load-test it."""
    from demo import run_demo

    return run_demo(output, sessions=sessions, items=items, epochs=epochs, seed=seed)


@command(app, screens.show_run)
def run(
    dataset: Yaml,
    output: Annotated[Path, typer.Option(help="Folder for features/, model/ and model_repository/.")] = Path("."),
    data_root: DataRoot = None,
    settings: Set = None,
    cluster: Cluster = None,
    preset: Preset = None,
) -> dict[str, Any]:
    """Preprocess, train, evaluate and export a data set in one go."""
    return run_pipeline(load_run(dataset, data_root, settings, preset), output, cluster)


@command(app, screens.show_preprocess)
def preprocess(
    dataset: Yaml,
    output: Features = Path("features"),
    data_root: DataRoot = None,
    settings: Set = None,
    cluster: Cluster = None,
    append: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Events of new days, which the fitted workflow transforms; repeat for several files."
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="With --append: a file of a known name may have other content.")
    ] = False,
    refit: Annotated[
        bool, typer.Option("--refit", help="Fit anew although days were appended; they are removed.")
    ] = False,
) -> dict[str, Any]:
    """Turn raw events into sessions: parquet, schema and the fitted workflow. Or append days to features that exist."""
    described = load_run(dataset, data_root, settings)
    if (append and refit) or (replace and not append):
        raise UserError("--replace goes with --append, and --refit without it")
    if append:
        from preprocessing.append import append as append_events

        return append_events(described, output, append, replace=replace, cluster=cluster)
    from preprocessing.preprocess import preprocess as preprocess_events

    return preprocess_events(described, output, cluster=cluster, refit=refit)


@command(app, screens.show_train)
def train(
    features: Features = Path("features"),
    output: Model = Path("model"),
    config: Config = None,
    settings: Set = None,
    window: Annotated[str, typer.Option(help=f"What to train on: train, {DAYS}.")] = "train",
    valid_window: Annotated[str, typer.Option(help=f"What says when to stop: valid, {DAYS}.")] = "valid",
    seed: Annotated[int | None, typer.Option(help="Seed of the model; the YAML's otherwise.", min=0)] = None,
    preset: Preset = None,
) -> dict[str, Any]:
    """Train a model on the features, with early stopping on the validation window."""
    from modeling.training import train as train_model
    from preprocessing.vocabulary import item_names

    given = load_settings(config, settings, preset).model
    if seed is not None:
        given = given.model_copy(update={"seed": seed})
    return train_model(features, output, given, window, valid_window, item_names)


@command(app, screens.show_search)
def search(
    features: Features = Path("features"),
    output: Annotated[Path, typer.Option(help="Folder for what is found; an earlier search goes on there.")] = (
        Path("search")
    ),
    config: Annotated[
        Path | None, typer.Option(help="YAML whose 'model' and 'search' settings apply: the ranges are in 'search'.")
    ] = None,
    settings: Set = None,
    trials: Annotated[int, typer.Option(help="Models to train, those of an earlier search included.", min=1)] = 20,
    minutes: Annotated[float | None, typer.Option(help="No longer than this.", min=0.01)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the proposals.", min=0)] = 0,
    window: Annotated[str, typer.Option(help=f"What to train on: train, {DAYS}.")] = "train",
    valid_window: Annotated[str, typer.Option(help=f"What to choose by: valid, {DAYS}.")] = "valid",
    storage: Annotated[Path | None, typer.Option(help="File of the trials; by default in the output folder.")] = None,
) -> dict[str, Any]:
    """Look for better settings: train models with settings in the YAML's ranges, and keep those best on validation."""
    from modeling.search.stage import search as search_settings

    given = load_settings(config, settings)
    windows: dict[str, Any] = {"window": window, "valid_window": valid_window}
    return search_settings(
        features, output, given.model, given.search, trials, minutes, seed, **windows, storage=storage
    )


@command(app, screens.show_evaluate)
def evaluate(
    model: Models = _MODELS,
    features: Features = Path("features"),
    window: Annotated[str, typer.Option(help=f"test, valid, {DAYS}.")] = "test",
    all_next: Annotated[bool, typer.Option("--all-next", help="Predict every item after the first, too.")] = False,
    sessions_file: Annotated[Path | None, typer.Option(help="Parquet of rank and metrics of each session.")] = None,
    against: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Such a file of another model.")] = None,
    cutoffs: Annotated[str, typer.Option(help="How many recommendations count, such as 1,10,100.")] = "10,20",
) -> dict[str, Any]:
    """Rank the whole catalogue for the last item of each held-out session, beside two baselines."""
    models = [model] if isinstance(model, str | Path) else model
    ks = sorted(numbers("--cutoffs", cutoffs))
    if len(models) > 1:
        from modeling.evaluation import evaluate_seeds

        if all_next or sessions_file or against:
            raise UserError("--all-next, --sessions-file and --against go with a single --model")
        return evaluate_seeds(models, features, window, ks)
    from modeling.evaluation import evaluate as evaluate_model

    return evaluate_model(
        models[0], features, window, ks, all_next=all_next, sessions_file=sessions_file, against=against
    )


@command(app, lambda report: show_facts("Exported", report))
def export(
    features: Features = Path("features"),
    model: Model = Path("model"),
    output: Annotated[Path, typer.Option(help="Model repository to write.")] = Path("model_repository"),
    config: Config = None,
    settings: Set = None,
    verify: Annotated[
        bool, typer.Option(help="Compare the compiled workflow with NVTabular's on the sample of sessions.")
    ] = True,
    variant: Annotated[str, typer.Option(help="nextitem, or stock: merlin-systems' own operators, to compare.")] = (
        "nextitem"
    ),
    backend: Annotated[
        str, typer.Option(help="python, or pytorch: the model runs in Triton's PyTorch backend, which NGC images have.")
    ] = "python",
) -> dict[str, Any]:
    """Package workflow and model into a Triton model repository."""
    from serving.export import export as export_model
    from serving.export import export_stock

    given = load_settings(config, settings).serving
    if variant not in ("nextitem", "stock"):
        raise UserError(f"--variant {variant} is not known: choose nextitem or stock")
    if backend not in get_args(Backend):
        raise UserError(f"--backend {backend} is not known: choose {' or '.join(get_args(Backend))}")
    if variant == "stock" and backend != "python":
        raise UserError(f"--backend {backend} does not go with --variant stock")
    if variant == "stock":
        return export_stock(features, model, output, given)
    return export_model(features, model, output, given, check=verify, backend=cast(Backend, backend))


app.add_typer(serving_app)


def main() -> None:
    """Entry point of the ``nextitem`` command."""
    # Triton's and Merlin's remarks on missing GPUs and TensorFlow help nobody here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app()


if __name__ == "__main__":
    main()
