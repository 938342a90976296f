"""The commands around a server: versions, serving, asking, load, playground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import screens
from commands.options import (
    CaFile,
    Config,
    Features,
    Host,
    Model,
    Protocol,
    Repository,
    Set,
    TokenFile,
    Url,
    Watched,
)
from commands.register import command
from common.display import show_facts, show_line
from common.errors import UserError
from common.progress import say
from pipeline import load_settings

app = typer.Typer()


@command(app, lambda report: show_facts("Deployed", report))
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

    serving = load_settings(config, settings).serving if config or settings else None
    return deploy_model(features, model, repository, serving, share, keep, url)


@command(app, lambda report: show_facts("Routed", report))
def route(
    versions: Annotated[list[str], typer.Argument(metavar="VERSION[=SHARE]...", help="3, or 2=0.9 3=0.1.")],
    repository: Annotated[Path, typer.Option(help="Folder that 'nextitem export' writes.")] = Path("model_repository"),
    url: Watched = None,
) -> dict[str, Any]:
    """Choose which versions answer: one, or several by a hash of the session's id."""
    from serving.deploy import route as route_sessions

    return route_sessions(repository, _shares(versions), url)


@command(app, lambda report: show_facts("Rolled back", report))
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


@command(app, lambda result: None)
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


@command(app, screens.show_recommend)
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


@command(app, lambda found: show_line(f"answers in {found['answered_ms']} ms, version {found['version']}"))
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


@command(app, screens.show_loadtest)
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


@command(app, lambda result: None)
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
