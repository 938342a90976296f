"""The results for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.server import ENGINES, MANY, PROTOCOLS
from common.display import show_line, show_table

Row = Mapping[str, float]
_HEADER = ("", "load", "req/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "req/s to stock", "p99 to stock")


def show(results: Mapping[str, Any]) -> None:
    """Print the tables of one catalogue, a protocol each, and how nextitem compares."""
    for protocol in PROTOCOLS:
        tables = {engine: rows_of(results, engine, protocol) for engine in ENGINES}
        if any(tables.values()):
            title = f"{results['items']:,} items, {'gRPC' if protocol == 'grpc' else 'HTTP'}"
            show_table(title, _HEADER, [line for engine in ENGINES for line in _lines(engine, tables)])
    for sentence in sentences(results):
        show_line(sentence)


def rows_of(results: Mapping[str, Any], engine: str, protocol: str) -> dict[str, Row]:
    """Load -> what was measured, of one engine over one protocol; empty where nothing was."""
    found = results.get(engine, {})
    found = found if protocol == "grpc" else found.get(protocol, {})
    return {load: row for load, row in found.items() if isinstance(row, Mapping) and "req_per_s" in row}


def _lines(engine: str, tables: Mapping[str, Mapping[str, Row]]) -> list[list[str]]:
    lines = []
    for load, row in tables[engine].items():
        stock = tables["stock"].get(load) if engine != "stock" else None
        ratios = (
            [f"{row['req_per_s'] / stock['req_per_s']:.1f}x", f"1/{stock['p99_ms'] / row['p99_ms']:.1f}"]
            if stock
            else ["", ""]
        )
        cells = [f"{row['req_per_s']:,.1f}", *(f"{row[name]:,.2f}" for name in ("p50_ms", "p95_ms", "p99_ms"))]
        lines.append([engine, words(load), *cells, f"{row['cpu_ms_per_req']:.2f}", *ratios])
    return lines


def words(load: str) -> str:
    """A load's name as people read it."""
    number = int(load[1:])
    if load[0] == "c":
        return f"{number} client{'s' if number > 1 else ''}"
    return f"{number} sessions a request" if load == f"b{MANY}" else f"{number} requests/s"


def sentences(results: Mapping[str, Any]) -> list[str]:
    """How nextitem compares with the others at the most clients over gRPC, and what failed."""
    tables = {engine: rows_of(results, engine, "grpc") for engine in ENGINES}
    said = []
    loads = [load for load in tables["nextitem"] if load[0] == "c"]
    if loads:
        most = max(loads, key=lambda load: int(load[1:]))
        ours = tables["nextitem"][most]
        if stock := tables["stock"].get(most):
            said.append(
                f"At {words(most)} nextitem answers {ours['req_per_s'] / stock['req_per_s']:.1f} times the requests "
                f"of stock, its p99 is 1/{stock['p99_ms'] / ours['p99_ms']:.1f}, "
                f"its CPU a request 1/{stock['cpu_ms_per_req'] / ours['cpu_ms_per_req']:.1f}."
            )
        for engine, what in (("model", "the TorchScript model alone"), ("noop", "a model that does nothing")):
            if (other := tables[engine].get(most)) and other["cpu_ms_per_req"]:
                ratio = ours["cpu_ms_per_req"] / other["cpu_ms_per_req"]
                said.append(f"Its CPU a request is {ratio:.2f} times that of {what}.")
    if "check" in results:
        said.append(f"nextitem and stock recommend {results['check']}.")
    said += [f"{engine}: {results[engine]['failure']}" for engine in ENGINES if "failure" in results.get(engine, {})]
    return said
