"""Results for people, on standard output: tables, and numbers one can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

# Wide enough outside a terminal that no cell is folded.
_console = Console(highlight=False, soft_wrap=False)
_file_console = Console(highlight=False, width=160)


def _out() -> Console:
    return _console if _console.is_terminal else _file_console


def show_json(result: Any) -> None:
    """Print machine-readable JSON, and nothing else."""
    print(json.dumps(result, indent=2, allow_nan=False, default=str))


def show_line(text: str) -> None:
    """Print one line."""
    _out().print(text, markup=False, soft_wrap=True)


def number(value: Any) -> str:
    """A number as people read it: thousands separated, four digits behind the point."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.4f}"
    return str(value)


def show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; columns of numbers stand to the right, columns of text to the left."""
    # A table folds its own title to its width, so the title goes before it.
    _out().print(f"\n{title}", style="bold", markup=False, soft_wrap=True)
    table = Table()
    for position, name in enumerate(header):
        textual = any(isinstance(row[position], str) and not row[position][:1].isdigit() for row in rows)
        table.add_column(name, justify="left" if textual or not position else "right")
    for row in rows:
        table.add_row(*(number(value) for value in row))
    _out().print(table)


def show_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Print names and values; nested mappings become names with dots."""
    show_table(title, ("", "value"), list(_flat(facts)))


def show_metrics(title: str, metrics: Mapping[str, Mapping[str, float]], share_of: str | None = None) -> None:
    """Print one row a model and one column a metric; `share_of` names the row that the others are compared to."""
    names = [name for name in next(iter(metrics.values())) if not name.startswith("expected_")]
    rows = []
    for model, values in metrics.items():
        cells: list[Any] = [model]
        for name in names:
            cell = f"{values[name]:.4f}"
            if share_of and model != share_of and share_of in metrics:
                cell += f" ({values[name] / metrics[share_of][name]:.0%})"
            cells.append(cell)
        rows.append(cells)
    show_table(title, ("", *names), rows)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Any:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield prefix + key, ", ".join(map(str, value))
        else:
            yield prefix + key, value
