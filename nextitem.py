"""The command line of nextitem: raw events in, next-item recommendations out.

Each command is a typed function that Python can call as well: it returns a dict, and only the command line prints.
"""

from __future__ import annotations

import functools
import inspect
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

import screens
from common.display import show_facts, show_json, show_line
from common.errors import UserError
from common.progress import say
from modeling.settings import ModelSettings
from pipeline import load_run, run_pipeline
from serving.settings import Backend, ServingSettings

warnings.filterwarnings("ignore", message="The pynvml package is deprecated")

app = typer.Typer(
    help="Raw events in, next-item recommendations out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Yaml = Annotated[Path, typer.Argument(help="Description of the data set, such as examples/online_retail.yaml.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder that the event files are in; the YAML's data_root otherwise.", envvar="NEXTITEM_DATA"),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting of the YAML: --set sessions.max_length=50."),
]
Config = Annotated[Path | None, typer.Option(help="YAML whose 'model' and 'serving' settings apply.")]
Features = Annotated[Path, typer.Option(help="Folder that 'nextitem preprocess' writes.")]
Model = Annotated[Path, typer.Option(help="Folder that 'nextitem train' writes.")]
Repository = Annotated[Path, typer.Argument(help="Folder that 'nextitem export' writes.")]
Cluster = Annotated[
    str | None,
    typer.Option(help="threads[N] in this process, local[N] processes, tcp://host:port of a Dask scheduler, or cuda."),
]
_DAYS = "an appended day such as 2026-11-20, or days 2026-11-14..2026-11-20"
Url = Annotated[str | None, typer.Option(help="host:port of the server; by default port 8001 (gRPC) or 8000 (HTTP).")]
Protocol = Annotated[str, typer.Option(help="grpc or http.")]
Watched = Annotated[
    str | None, typer.Option(help="host:port of the server's HTTP: wait until it answers so, or take it back.")
]
CaFile = Annotated[
    Path | None,
    typer.Option(help="PEM file of the certificates to trust, for https:// and grpcs://.", envvar="NEXTITEM_CA_FILE"),
]
TokenFile = Annotated[Path | None, typer.Option(help="File with the server's token; NEXTITEM_TOKEN otherwise.")]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")]


def command(show: Callable[[dict[str, Any]], None]) -> Callable[[Callable[..., dict[str, Any]]], Any]:
    """Register a function as a command that prints its result, as tables or with ``--json`` as JSON."""

    def register(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        @functools.wraps(function)
        def run_command(*args: Any, as_json: bool = False, **kwargs: Any) -> None:
            try:
                result = function(*args, **kwargs)
            except UserError as error:
                say(f"error: {error}")
                raise typer.Exit(error.exit_code) from error
            except KeyboardInterrupt:
                say("interrupted: what was there before is untouched")
                raise typer.Exit(130) from None
            (show_json if as_json else show)(result)

        option = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
        signature = inspect.signature(function, eval_str=True)
        extra = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        parameters = [*signature.parameters.values(), extra]
        run_command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name=function.__name__)(run_command)
        return function

    return register


def _settings(config: Path | None, settings: list[str] | None) -> tuple[ModelSettings, ServingSettings]:
    if config is not None:
        run = load_run(config, None, settings)
        return run.model, run.serving
    if settings:
        raise UserError("--set needs the YAML that it changes: give --config too")
    return ModelSettings(), ServingSettings()


@command(screens.show_demo)
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


@command(screens.show_run)
def run(
    dataset: Yaml,
    output: Annotated[Path, typer.Option(help="Folder for features/, model/ and model_repository/.")] = Path("."),
    data_root: DataRoot = None,
    settings: Set = None,
    cluster: Cluster = None,
) -> dict[str, Any]:
    """Preprocess, train, evaluate and export a data set in one go."""
    return run_pipeline(load_run(dataset, data_root, settings), output, cluster)


@command(screens.show_preprocess)
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


@command(screens.show_train)
def train(
    features: Features = Path("features"),
    output: Model = Path("model"),
    config: Config = None,
    settings: Set = None,
    window: Annotated[str, typer.Option(help=f"What to train on: train, {_DAYS}.")] = "train",
    valid_window: Annotated[str, typer.Option(help=f"What says when to stop: valid, {_DAYS}.")] = "valid",
) -> dict[str, Any]:
    """Train a model on the features, with early stopping on the validation window."""
    from modeling.training import train as train_model
    from preprocessing.vocabulary import item_names

    return train_model(features, output, _settings(config, settings)[0], window, valid_window, item_names)


@command(screens.show_evaluate)
def evaluate(
    model: Model = Path("model"),
    features: Features = Path("features"),
    window: Annotated[str, typer.Option(help=f"test, valid, {_DAYS}.")] = "test",
    all_next: Annotated[bool, typer.Option("--all-next", help="Predict every item after the first, too.")] = False,
    sessions_file: Annotated[Path | None, typer.Option(help="Parquet of rank and metrics of each session.")] = None,
    against: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Such a file of another model.")] = None,
) -> dict[str, Any]:
    """Rank the whole catalogue for the last item of each held-out session, beside two baselines."""
    from modeling.evaluation import evaluate as evaluate_model

    return evaluate_model(model, features, window, all_next=all_next, sessions_file=sessions_file, against=against)


@command(lambda report: show_facts("Exported", report))
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

    serving = _settings(config, settings)[1]
    if variant not in ("nextitem", "stock"):
        raise UserError(f"--variant {variant} is not known: choose nextitem or stock")
    if backend not in get_args(Backend):
        raise UserError(f"--backend {backend} is not known: choose {' or '.join(get_args(Backend))}")
    if variant == "stock" and backend != "python":
        raise UserError(f"--backend {backend} does not go with --variant stock")
    if variant == "stock":
        return export_stock(features, model, output, serving)
    return export_model(features, model, output, serving, check=verify, backend=cast(Backend, backend))


@command(lambda report: show_facts("Deployed", report))
def deploy(
    features: Features = Path("features"),
    model: Model = Path("model"),
    repository: Repository = Path("model_repository"),
    share: Annotated[float, typer.Option(help="The new version's share of the sessions; the rest stay.")] = 1.0,
    keep: Annotated[int, typer.Option(help="Versions that stay in the repository.", min=1)] = 2,
    url: Watched = None,
    config: Config = None,
    settings: Set = None,
) -> dict[str, Any]:
    """Add a new version to a repository, and switch a running server to it without a failed request."""
    from serving.deploy import deploy as deploy_model

    serving = _settings(config, settings)[1] if config or settings else None
    return deploy_model(features, model, repository, serving, share, keep, url)


@command(lambda report: show_facts("Routed", report))
def route(
    versions: Annotated[list[str], typer.Argument(metavar="VERSION[=SHARE]...", help="3, or 2=0.9 3=0.1.")],
    repository: Annotated[Path, typer.Option(help="Folder that 'nextitem export' writes.")] = Path("model_repository"),
    url: Watched = None,
) -> dict[str, Any]:
    """Choose which versions answer: one, or several by a hash of the session's id."""
    from serving.deploy import route as route_sessions

    return route_sessions(repository, _shares(versions), url)


@command(lambda report: show_facts("Rolled back", report))
def rollback(repository: Repository = Path("model_repository"), url: Watched = None) -> dict[str, Any]:
    """Go back to the version before."""
    from serving.deploy import rollback as roll_back

    return roll_back(repository, url)


def _shares(versions: list[str]) -> dict[int, float]:
    shares = {}
    for text in versions:
        version, given, share = text.partition("=")
        try:
            shares[int(version)] = float(share) if given else 1.0
        except ValueError:
            raise UserError(f"{text!r} is not a version, as 3, or one with its share, as 3=0.1") from None
    return shares


@command(lambda result: None)
def serve(
    repository: Repository = Path("model_repository"),
    host: Host = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="Port for HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Port for gRPC.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Port for Prometheus metrics.")] = 8002,
    log_file: Annotated[Path | None, typer.Option(help="Keep Triton's whole log here.")] = None,
    log_format: Annotated[
        str, typer.Option(help="text, or json: one object a line on standard output, with all of Triton's log.")
    ] = "text",
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate: encrypts HTTP and gRPC.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's key.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with a token of 16 characters or more, which clients must show.")
    ] = None,
    max_body_bytes: Annotated[int, typer.Option(help="Largest HTTP request that is taken.", min=1024)] = 16 << 20,
) -> dict[str, Any]:
    """Run tritonserver on a model repository until Ctrl-C."""
    from serving.logs import in_format, warn
    from serving.repository import recover
    from serving.security import Security
    from serving.server import TritonServer, serve_forever

    with in_format(log_format):
        recover(repository)
        security, ports = Security.read(tls_cert, tls_key, token_file), (http_port, grpc_port, metrics_port)
        for line in security.remarks(host):
            warn(line)
        limits: dict[str, Any] = {"security": security, "max_body_bytes": max_body_bytes}
        server = TritonServer(repository, host, *ports, log_file=log_file, watch=True, **limits)
        return {"exit_code": serve_forever(server, log_format=log_format)}


@command(screens.show_recommend)
def recommend(
    events: Annotated[str, typer.Argument(help="csv, json, jsonl or parquet file of raw events, or - for stdin.")],
    url: Url = None,
    protocol: Protocol = "grpc",
    top_k: Annotated[int | None, typer.Option(help="Items a session; by default all that the server gives.")] = None,
    ca_file: CaFile = None,
    token_file: TokenFile = None,
) -> dict[str, Any]:
    """Ask a running server what the sessions in a file will want next."""
    from serving.client import NextItemClient
    from serving.events import read_events
    from serving.security import find_token

    columns, token = read_events(events), find_token(token_file=token_file)
    with NextItemClient(_url(url, protocol), protocol, token=token, ca_file=ca_file) as client:
        return client.recommend(columns, top_k).to_dict()


@command(lambda found: show_line(f"answers in {found['answered_ms']} ms, version {found['version']}"))
def health(
    url: Url = None,
    protocol: Protocol = "grpc",
    timeout: Annotated[float, typer.Option(help="Seconds that one question may take.", min=0.01)] = 5.0,
    ca_file: CaFile = None,
    token_file: TokenFile = None,
) -> dict[str, Any]:
    """Ask a running server for a recommendation for a made-up session; exit code 1 when it gives none."""
    from serving.health import check_health
    from serving.security import find_token

    token = find_token(token_file=token_file)
    return check_health(_url(url, protocol), protocol, timeout, token=token, ca_file=ca_file)


@command(screens.show_loadtest)
def loadtest(
    events: Annotated[Path, typer.Option(help="Raw events of real sessions.")] = Path("features/sample.parquet"),
    url: Url = None,
    protocol: Protocol = "grpc",
    concurrency: Annotated[list[int] | None, typer.Option(help="Requests under way; repeat for several.")] = None,
    requests: Annotated[int, typer.Option(help="Requests a measurement.", min=100)] = 1500,
    ca_file: CaFile = None,
    token_file: TokenFile = None,
) -> dict[str, Any]:
    """Drive a running server with perf_analyzer: throughput and latency at each concurrency."""
    from serving.events import read_events
    from serving.loadtest import loadtest as run_loadtest
    from serving.security import find_token

    columns, token = read_events(events), find_token(token_file=token_file)
    url, concurrencies = _url(url, protocol), concurrency or [1, 4, 16]
    return {"rows": run_loadtest(url, columns, protocol, concurrencies, requests, token=token, ca_file=ca_file)}


@command(lambda result: None)
def playground(
    features: Features = Path("features"),
    url: Url = None,
    protocol: Protocol = "grpc",
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0 for any that is free.")] = 8003,
    events: Annotated[str | None, typer.Option(help="Event files that name the items; by default the YAML's.")] = None,
    ca_file: CaFile = None,
    token_file: TokenFile = None,
) -> dict[str, Any]:
    """Serve a web page on which to click a session together and watch a running server recommend, until Ctrl-C."""
    from serving.playground.reading import read_catalogue
    from serving.playground.server import Playground, serve_playground
    from serving.security import find_token

    catalogue, source = read_catalogue(features, events)
    say(f"{len(catalogue):,} items from {source}; Ctrl-C stops")
    token = find_token(token_file=token_file)
    page = Playground(catalogue, _url(url, protocol), protocol, host, token, ca_file)
    return {"exit_code": serve_playground(page, port, show_line)}


def _url(url: str | None, protocol: str) -> str:
    return url or f"127.0.0.1:{8000 if protocol == 'http' else 8001}"


def main() -> None:
    """Entry point of the ``nextitem`` command."""
    # Triton's and Merlin's remarks on missing GPUs and TensorFlow help nobody here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app()


if __name__ == "__main__":
    main()
