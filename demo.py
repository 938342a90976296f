"""The demo: the whole pipeline on a simulated shop whose best possible accuracy is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from common.display import show_facts, show_line, show_metrics, show_table
from common.errors import UserError
from common.progress import say, step
from pipeline import load_run, run_pipeline

_YAML = Path(__file__).parent / "examples" / "simulated_shop.yaml"
_SHOWN = 5
_CONCURRENCIES = (1, 4, 16)


def run_demo(output: Path, sessions: int, items: int, epochs: int | None, seed: int) -> dict[str, Any]:
    """Run every stage on a simulated shop.

    Parameters
    ----------
    output : Path
        Folder for ``events.parquet``, ``features/``, ``model/`` and ``model_repository/``.
    sessions, items : int
        Size of the shop.
    epochs : int, optional
        Passes over the training window.
    seed : int
        Of the shop and of the model.

    Returns
    -------
    dict
        ``events``, ``sessions``, ``prepared`` (the report of the features), ``training``, ``metrics`` (model, optimum,
        popularity, cooccurrence), ``answers`` (what Triton answered live), ``loadtest`` (a row a concurrency) and
        ``serving`` (the row at 4 clients).
    """
    from preprocessing.shop import ShopSettings, write_events

    changes = [f"model.seed={seed}", *([f"model.epochs={epochs}"] if epochs else [])]
    run = load_run(_YAML, output, changes)
    shop = ShopSettings(seed=seed, items=items, sessions=sessions)
    with step("Simulating the shop") as bar:
        output.mkdir(parents=True, exist_ok=True)
        write_events(shop, output / "events.parquet")
        bar.say(f"{sessions:,} sessions, {items:,} items")
    result = run_pipeline(run, output)
    features = output / "features"
    return {
        "events": result["preprocess"]["events"],
        "sessions": result["preprocess"]["sessions"],
        "prepared": result["preprocess"],
        "training": result["train"],
        "metrics": _with_optimum(result["evaluate"]["metrics"], shop, output, features),
        **_serve(output / "model_repository", features),
    }


def _with_optimum(metrics: dict[str, Any], shop: Any, output: Path, features: Path) -> dict[str, Any]:
    """Put beside the model what the shop's own law reaches on the very same sessions."""
    from preprocessing.shop import build_shop, optimum

    test = pq.read_table(features / "test", columns=["session_id", "item_id"])
    targets = np.array([items[-1] for items in test.column("item_id").to_pylist()])
    known = test.column("session_id").to_numpy()[targets >= 3]
    best = optimum(build_shop(shop), pq.read_table(output / "events.parquet"), known)
    shared = {name: best[name] for name in metrics["model"]}
    return {"optimum": shared, **metrics}


def _serve(repository: Path, features: Path) -> dict[str, Any]:
    from serving.events import read_events
    from serving.loadtest import loadtest
    from serving.server import TritonServer

    columns = read_events(features / "sample.parquet")
    none = {"concurrency": None, "req_per_s": None, "p50_ms": None, "p95_ms": None, "p99_ms": None}
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0) as server:
        answers = _ask(server.addresses, columns)
        rows: list[dict[str, Any]] = []
        try:
            rows = loadtest(server.addresses["grpc"], columns, "grpc", _CONCURRENCIES)
        except UserError as error:
            say(f"no load test: {error}")
    chosen = next((row for row in rows if row["concurrency"] == 4), none)
    return {"answers": answers, "loadtest": rows, "serving": chosen}


def _ask(addresses: dict[str, str], columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Hide the last event of a few real sessions and ask Triton for it, over both protocols."""
    from serving.client import NextItemClient

    positions: dict[Any, list[int]] = {}
    for position, session in enumerate(columns["session_id"]):
        positions.setdefault(session, []).append(position)
    by_time = [sorted(rows, key=lambda row: columns["time"][row]) for rows in list(positions.values())[:_SHOWN]]
    rows = [row for session in by_time for row in session[:-1]]
    request = {name: [values[row] for row in rows] for name, values in columns.items()}
    replies = {}
    for protocol in ("grpc", "http"):
        with NextItemClient(addresses[protocol], protocol) as client:
            replies[protocol] = client.recommend(request)
    if replies["grpc"].to_dict() != replies["http"].to_dict():
        raise RuntimeError("gRPC and HTTP answered differently")
    reply = replies["grpc"]
    return [
        {
            "session_id": session,
            "seen": [columns["item_id"][row] for row in seen[:-1]],
            "recommended": items,
            "came": columns["item_id"][seen[-1]],
        }
        for session, items, seen in zip(reply.session_id, reply.item_id, by_time, strict=True)
    ]


def show(result: dict[str, Any]) -> None:
    """Print what the demo found."""
    from preprocessing.report import show_data

    training = result["training"]
    show_data(result["prepared"])
    show_facts("Trained", {name: value for name, value in training.items() if not isinstance(value, dict)})
    show_metrics(
        "Last item of held-out sessions, whole catalogue ranked (share of the optimum)", result["metrics"], "optimum"
    )
    show_line("The optimum ranks by the law that the simulated shop itself draws the next item from.\n")
    rows = []
    for answer in result["answers"]:
        place = answer["recommended"].index(answer["came"]) + 1 if answer["came"] in answer["recommended"] else None
        best = ", ".join(map(str, answer["recommended"][:4]))
        came = f"{answer['came']} ({f'place {place}' if place else 'not listed'})"
        rows.append([str(answer["session_id"]), ", ".join(map(str, answer["seen"][-3:])), best, came])
    header = ("session", "last items", "Triton recommends", "what came")
    show_table("Live from Triton, the same over gRPC and HTTP", header, rows)
    if result["loadtest"]:
        names = ("concurrency", "req_per_s", "p50_ms", "p95_ms", "p99_ms")
        rows = [[str(row["concurrency"]), *(f"{row[name]:,.1f}" for name in names[1:])] for row in result["loadtest"]]
        show_table("One session a request, gRPC, measured by perf_analyzer", names, rows)
