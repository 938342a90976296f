"""A page: one HTML file that needs nothing else, neither network nor scripts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.display import number, plain
from common.page.style import STYLE

# The policy forbids scripts and every request, even if some text of the data should ever get past the escaping.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def write_page(path: Path, title: str, heading: str, before: str, cards: Sequence[str]) -> None:
    """Write a page.

    Parameters
    ----------
    path : Path
        The HTML file.
    title, heading : str
        Of the browser's tab, and on the page.
    before : str
        HTML between the heading and the cards.
    cards : sequence of str
        HTML that `card` made; empty ones are left out.
    """
    body = f"<h1>{text(heading)}</h1>{before}<main>{''.join(filter(None, cards))}</main>"
    path.write_text(_PAGE.format(title=text(title), style=STYLE, body=body), encoding="utf-8")


def text(value: Any) -> str:
    """A value as text that HTML may hold."""
    return html.escape(plain(value))


def paragraph(words: str) -> str:
    """A sentence or two; nothing of no words."""
    return f"<p>{text(words)}</p>" if words else ""


def tiles(entries: Sequence[tuple[str, Any]]) -> str:
    """A few large numbers, each with its name."""
    return (
        "<dl>"
        + "".join(f"<div><dt>{text(what)}</dt><dd>{text(number(value))}</dd></div>" for what, value in entries)
        + "</dl>"
    )


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table that scrolls by itself when it is wider than the screen; the first column names the row."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{text(number(value))}</td>" for value in others)
        lines.append(f'<tr><th scope="row">{text(first)}</th>{cells}</tr>')
    title = text(caption)
    return (
        f'<div class="table" role="region" aria-label="{title}" tabindex="0"><table><caption>{title}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def card(name: str, title: str, drawn: Any, sentences: Sequence[str], tables: Sequence[str]) -> str:
    """A picture with what it says in words, and the exact numbers folded away beneath."""
    # Matplotlib takes a moment to import, which only pages with pictures pay.
    from common.page.svg import to_svg

    words = text(" ".join(sentence for sentence in sentences if sentence))
    picture = to_svg(drawn, name, f"{text(title)}. {words}") if drawn else ""
    exact = f"<details><summary>Exact numbers</summary>{''.join(tables)}</details>" if tables else ""
    return f"<section><h2>{text(title)}</h2><figure>{picture}<figcaption>{words}</figcaption></figure>{exact}</section>"


def section(title: str, words: str, inner: str, wide: bool = False) -> str:
    """A card that shows its tables, over the whole width of the page if `wide`; `inner` is HTML."""
    kind = ' class="wide"' if wide else ""
    return f"<section{kind}><h2>{text(title)}</h2>{paragraph(words)}{inner}</section>"


def prose(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of words, which are HTML and may take several lines."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="table" role="region" aria-label="{text(caption)}" tabindex="0"><table class="prose">'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )
