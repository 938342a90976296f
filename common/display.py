"""Results for people, on standard output: tables, and numbers one can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
    _out().print(_encodable(text), markup=False, soft_wrap=True)


def _encodable(text: str) -> str:
    """The text with question marks for what standard output cannot hold."""
    encoding = _out().encoding
    return text.encode(encoding, "replace").decode(encoding)


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


def plain(text: Any, width: int | None = None) -> str:
    """A value as harmless text of one line: control and invisible characters replaced, cut to `width` characters."""
    # Cut first: an id may be as long as its owner likes.
    shown = str(text)[: None if width is None else width + 1]
    shown = "".join(character if character.isprintable() else "\ufffd" for character in shown)
    return shown if width is None or len(shown) <= width else shown[: width - 1] + "…"


def show_bars(title: str, rows: Sequence[tuple[str, int, str]]) -> None:
    """Print a bar a row, at most 80 columns wide.

    Parameters
    ----------
    title : str
        What is counted.
    rows : sequence of (label, count, note)
        The note, such as a share, stands between the count and its bar; all of them may be empty.
    """
    out = _out()
    out.print(Text(_encodable(f"\n{title}")), style="bold", soft_wrap=True)
    rows = [(_encodable(label), count, note) for label, count, note in rows]
    counts = [f"{count:,}" for _, count, _ in rows]
    count_width = max((len(count) for count in counts), default=0)
    note_width = max((cell_len(note) for _, _, note in rows), default=0)
    line = min(80, out.width)
    # Long labels are cut, or they would leave no room for the bars.
    label_width = max((cell_len(label) for label, _, _ in rows), default=0)
    label_width = max(8, min(label_width, line // 2, line - count_width - note_width - 18))
    room = max(1, line - label_width - count_width - note_width - (8 if note_width else 6))
    largest = max((count for _, count, _ in rows), default=0)
    for (label, value, note), count in zip(rows, counts, strict=True):
        cut = label if cell_len(label) <= label_width else f"{set_cell_size(label, label_width - 1).rstrip()}…"
        parts = [set_cell_size(cut, label_width), count.rjust(count_width)]
        parts += [note.rjust(note_width)] if note_width else []
        out.print(Text(_encodable("  " + "  ".join([*parts, _bar(value, largest, room)]).rstrip())), soft_wrap=True)


def _bar(value: int, largest: int, room: int) -> str:
    """A bar in eighths of a character; anything above nothing can be seen."""
    eighths = max(1, round(value / largest * room * 8)) if value > 0 else 0
    if not _out().encoding.startswith("utf"):
        return "#" * -(-eighths // 8)
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]


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
