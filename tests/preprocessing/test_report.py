"""The report as a page and on the screen: complete, harmless, and the same every time."""

from datetime import date
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pyarrow as pa
import pytest

from common.display import plain, show_bars
from preprocessing.report import facts, show_data, write_report
from preprocessing.statistics import EventStatistics, FeatureStatistics, catalogue

HOSTILE = '<script>alert(1)</script>--><svg onload=alert(2)> "$x$" id="x" \x1b[31m\n\u202e &amp;'
DAY = 86_400 * 10**9


def made(days=40, items=("tea", "mug", HOSTILE, "日本"), cat=None, numbers=None, lengths=(2, 2, 3, 120)):
    events = EventStatistics()
    start = np.datetime64("2024-01-01T10:00", "ns").astype(np.int64)
    events.add(start + np.arange(days * 3) * DAY // 3, np.array(lengths, dtype=np.int64))
    features = FeatureStatistics()
    cat = {"brand": [1, 2, 3, 3]} if cat is None else cat
    numbers = {"price": [0.5, -1.0, 0.25]} if numbers is None else numbers
    for window in ("test", "train", "valid"):
        table = pa.table({name: [values] for name, values in (cat | numbers).items()})
        features.add(window, table, list(cat), list(numbers))
    return {
        "events_read": 1_000,
        "events_dropped": {"where type": 150, HOSTILE: 50, "where nothing": 0},
        "events": 800,
        "sessions": 4,
        "items": len(items),
        "windows": {
            name: {"begins": f"2024-01-{day}T10:00:00", "sessions": 1, "events": 250}
            for name, day in (("train", "01"), ("valid", "20"), ("test", "30"))
        },
        "data": {
            "events": events.to_json(),
            "features": features.to_json(),
            "catalogue": catalogue(pa.array(items, pa.string()), np.arange(len(items), 0, -1) * 100),
        },
    }


class Page(HTMLParser):
    """A page read strictly: what is opened is closed, and everything is noted."""

    EMPTY = frozenset({"meta"})

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.pictures, self.cells, self.tags = [], [], [], [], [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        assert not [name for name in attributes if name.startswith("on")]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href")]
        self.links += [part.split(")")[0] for _, value in attrs for part in (value or "").split("url(")[1:]]
        self.pictures += [attributes.get("aria-label")] if tag == "svg" else []
        self.cells += [""] if tag in ("td", "th") else []
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def page_of(report, path):
    write_report(path, "tiny", report)
    text = path.read_text(encoding="utf-8")
    return Page(text), text


def test_page_stands_alone_and_is_labelled(tmp_path):
    page, text = page_of(made(), tmp_path / "report.html")
    assert not page.tags & {"script", "link", "img", "iframe", "object", "image"}
    assert page.links
    assert {link[0] for link in page.links} == {"#"}
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(page.pictures) == 8
    assert all(page.pictures)
    # Colours follow light and dark, and no font is asked for that the page does not choose.
    assert "#0102" not in text
    assert "DejaVu" not in text


def test_text_of_the_data_is_only_text(tmp_path):
    report = made(cat={HOSTILE: [1, 2]}, numbers={f"price {HOSTILE}": [1.0]})
    report["quarantined"] = {"rows": 3, "reasons": {HOSTILE: 3}, "share": 0.003}
    page, text = page_of(report, tmp_path / "report.html")
    assert plain(HOSTILE) in page.cells
    assert f"- {plain(HOSTILE)}" in page.cells
    assert not set(text) & {"\x1b", "\u202e"}
    assert text.count("<svg") == 8


def test_numbers_of_the_account_are_on_the_page(tmp_path):
    page, text = page_of(made(), tmp_path / "report.html")
    row = page.cells.index("- where type")
    assert page.cells[row : row + 3] == ["- where type", "150", "15.0%"]
    assert "800 of 1,000 events (80.0%) are kept." in text
    assert "- where nothing" not in page.cells


def test_same_report_same_bytes_and_no_trace_in_matplotlib(tmp_path):
    before = dict(matplotlib.rcParams)
    write_report(tmp_path / "a.html", "tiny", made())
    write_report(tmp_path / "b.html", "tiny", made())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    "settings",
    [
        {"days": 1, "items": ["one"], "lengths": [3]},
        {"days": 0, "items": [], "lengths": []},
        {"days": 100_000, "items": ["a", "b"]},
        {"cat": {}, "numbers": {}},
        {"cat": {"brand": [3]}, "numbers": {f"n{i}": [float(i), float("nan")] for i in range(30)}},
    ],
)
def test_any_size_of_data_makes_a_page_and_a_screen(settings, tmp_path, capsys):
    report = made(**settings)
    page_of(report, tmp_path / "report.html")
    show_data(report)
    assert "  kept" in capsys.readouterr().out


def test_an_older_report_shows_what_it_has(tmp_path, capsys):
    report = made()
    del report["data"]
    page, _ = page_of(report, tmp_path / "report.html")
    assert len(page.pictures) == 1
    show_data(report)
    assert "800  80.0%" in capsys.readouterr().out


def test_screen_is_narrow_and_plain(capsys):
    report = made(items=["tea", HOSTILE, "a very long item id of more than forty characters", "日本"])
    show_data(report)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "\x1b" in line]
    assert "Events a week, 2024-01-01 to 2024-02-10 (UTC)" in lines
    assert [line.split()[:2] for line in lines if line.startswith("  2024-01-")] == [
        ["2024-01-01", "20"],
        ["2024-01-08", "21"],
        ["2024-01-15", "21"],
        ["2024-01-22", "21"],
        ["2024-01-29", "21"],
    ]
    assert "Test events that training did not know: brand 25.0%." in lines


def test_bars_are_in_proportion(capsys):
    show_bars("Title", [("a", 100, ""), ("b", 50, ""), ("c", 1, ""), ("d", 0, "")])
    title, *rows = capsys.readouterr().out.splitlines()[1:]
    eighths = [sum(" ▏▎▍▌▋▊▉█".index(block) for block in row.split()[2]) for row in rows[:3]]
    assert title == "Title"
    assert len(rows[0]) == 80
    assert eighths == [eighths[0], eighths[0] / 2, round(eighths[0] / 100)]
    assert eighths[0] % 8 == 0
    assert rows[3] == "  d           0"


def test_every_event_is_accounted_for():
    report = {"events_read": 100, "events": 80, "events_dropped": {"where a": 5, "where b": 0}}
    assert [(step.label, step.events) for step in facts.steps(report)] == [
        ("read", 100),
        ("where a", 5),
        ("not accounted for", 15),
        ("kept", 80),
    ]
    report["quarantined"] = {"rows": 15, "reasons": {"no time": 15}, "share": 0.15}
    assert [step.label for step in facts.steps(report)] == ["read", "quarantined: no time", "where a", "kept"]


def test_calendar_bins_are_as_fine_as_fits():
    # 2024-01-01 was a Monday; 60 days from the Sunday before end on 2024-02-28.
    days = {"unit": "day", "first_day": "2023-12-31", "counts": list(range(60)), "stray": []}
    weeks = facts.calendar(days, 14)
    assert (weeks.unit, weeks.counts[:2], weeks.starts[0]) == ("week", [0, 28], date(2023, 12, 25))
    assert weeks.end == date(2024, 3, 4)
    assert facts.calendar(days, 60).counts == days["counts"]
    long = {**days, "counts": [1] * 366}
    months = facts.calendar(long, 14)
    assert (months.unit, months.labels[:3], months.counts[:3]) == (
        "month",
        ["2023-12", "2024-01", "2024-02"],
        [1, 31, 29],
    )
    for unit, counts in (("day", 4_000), ("month", 7_000)):
        for most in (14, 60, 150, 10_000):
            bins = facts.calendar({"unit": unit, "first_day": "1677-09-01", "counts": [3] * counts}, most)
            assert len(bins.counts) <= most
            assert sum(bins.counts) == 3 * counts
    assert facts.calendar({"unit": "month", "first_day": "1999-11-01", "counts": [1] * 4}, 14).labels[2] == "2000-01"
    assert facts.calendar({"unit": "month", "first_day": "1999-11-01", "counts": [1] * 100}, 40).labels[0] == "1999 Q4"


def test_rows_of_lengths_hold_every_session():
    counts = [0, *range(1, 101)]
    rows = facts.lengths({"counts": counts, "more": 7, "longest": 900})
    assert len(rows) <= 14
    assert sum(sessions for _, sessions in rows) == sum(counts) + 7
    assert rows[5] == ("6-7", 13)
    assert facts.lengths({"counts": [0, 0, 5, 0, 1], "more": 0, "longest": 4}) == [("2", 5), ("3", 0), ("4", 1)]
    assert facts.median_length({"counts": [0, 2, 2], "more": 1, "longest": 101}) == 2
    assert facts.median_length({"counts": [0, 2], "more": 3, "longest": 101}) is None


def test_shares_round_nothing_away():
    parts = ["0%", "<0.1%", "0.1%", "50.0%", "99.9%", ">99.9%", "100%"]
    assert [facts.share(part, 10_000) for part in (0, 1, 10, 5_000, 9_990, 9_999, 10_000)] == parts
    assert facts.share(1, 0) == "-"


def test_text_is_made_plain():
    assert plain("a\x00b\u202ec\nd") == "a\ufffdb\ufffdc\ufffdd"
    assert plain("abcdef", 4) == "abc…"
    assert (plain("abcd", 4), plain(7, 3)) == ("abcd", "7")
