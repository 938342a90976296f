"""Triton's log: the reason why it did not start, the lines worth seeing, and all of it as records for a collector."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

_NOISE = re.compile(r"CUDA|Cuda|NVML|DCGM|pinned memory|pinned system memory|GPU metrics")
_LOG_LINE = re.compile(r'^[IWEF]\d{4} \S+ \d+ [\w.]+:\d+\] "?(?P<message>.*?)"?$')
_RECORD = re.compile(
    r"^(?P<level>[IWEF])(?P<month>\d\d)(?P<day>\d\d) (?P<time>\d\d:\d\d:\d\d(\.\d{1,6})?) \d+ "
    r"(?P<file>[\w.]+):\d+\] ?(?P<text>.*)$",
    re.DOTALL,
)
_NO_BACKEND = "unable to find backend library for backend 'pytorch'"
_EXPORT_OTHERWISE = (
    "this repository needs Triton's PyTorch backend, which is not here: export without --backend pytorch, or serve it "
    "in an NGC image of Triton"
)
_COLOURS = re.compile(r"\x1b\[[\d;]*m")
_LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "critical"}


def is_notable(line: str) -> bool:
    """Whether a log line is a warning or an error, and not one about a machine without a GPU."""
    return line[:1] in "EFW" and bool(_LOG_LINE.match(line)) and not _NOISE.search(line)


def failure_reason(log: str) -> str | None:
    """The line of a Triton log that says why the server did not start.

    Parameters
    ----------
    log : str
        The log, or as much of it as there is.

    Returns
    -------
    str or None
        One line without file positions and traces; None when nothing in the log looks like a reason.
    """
    messages: list[str] = []
    for line in log.splitlines():
        found = _LOG_LINE.match(line)
        message = found["message"] if found and line[0] in "EF" else line if line.startswith("error:") else ""
        # Python's own words end where its "At:" with the trace begins; a newline is written as backslash and n.
        message = re.split(r"\\n\\nAt:|\\nAt:", message)[0].replace("\\n", " ").strip()
        if message and not _NOISE.search(message):
            messages.append(message)
    tests: list[Callable[[str], bool]] = [
        lambda message: "already in use" in message,
        lambda message: message.startswith("failed to load '"),
        lambda message: not message.startswith("error: creating server"),
        lambda message: True,
    ]
    for test in tests:
        for message in filter(test, messages):
            if _NO_BACKEND in message:
                return _EXPORT_OTHERWISE
            return re.sub(r"^failed to load '(\S+)' version \d+: (Internal: )?", r"model '\1': ", message)
    return None


def parse(line: str, now: datetime | None = None) -> dict[str, str] | None:
    """A line of Triton's log as a record.

    Parameters
    ----------
    line : str
        As in ``W1122 10:30:02.123456 17 model.cc:12] "text"``; the text may go on over further lines.
    now : datetime, optional
        The time in UTC, as which Triton writes its own, but without the year.

    Returns
    -------
    dict or None
        ``time`` in ISO 8601 and UTC, ``level`` (info, warning, error or critical), ``source`` ("nextitem" for what our
        model writes, "triton" for the rest) and ``message``; None for a line of another form.
    """
    found = _RECORD.match(line.rstrip("\n"))
    now = now or datetime.now(UTC)
    moment = _moment(found, now) if found else None
    if found is None or moment is None:
        return None
    source = "nextitem" if found["file"].endswith(".py") else "triton"
    return _record(moment, _LEVELS[found["level"]], source, _unquoted(found["text"]))


def records(lines: Iterable[str], now: datetime | None = None) -> list[dict[str, str]]:
    """Consecutive lines of Triton's log as records.

    A text over several lines, such as a table, stays together with the line it begins in. Lines that belong to none,
    which the process of a model printed, become one record.

    Parameters
    ----------
    lines : iterable of str
        Whole lines.
    now : datetime, optional
        As for `parse`.
    """
    now = now or datetime.now(UTC)
    blocks: list[list[str]] = []
    going_on = False
    for line in lines:
        line = _COLOURS.sub("", line.rstrip("\n"))
        found = _RECORD.match(line)
        if found or not going_on:
            blocks.append([line])
        else:
            blocks[-1].append(line)
        # A text in quotes ends in its line. A table has none and ends with an empty line, as does what a model prints.
        going_on = not re.fullmatch('".*"', found["text"]) if found else bool(line)
    texts = ["\n".join(block).strip("\n") for block in blocks]
    return [
        parse(text, now) or _record(now, "error" if "Traceback (most recent" in text else "info", "triton", text)
        for text in texts
        if text
    ]


def _record(moment: datetime, level: str, source: str, message: str) -> dict[str, str]:
    time = moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": time, "level": level, "source": source, "message": message}


def _moment(found: re.Match[str], now: datetime) -> datetime | None:
    """The latest moment of this day and time that is not in the future: the log does not say the year."""
    for year in (now.year + 1, now.year, now.year - 1):
        try:
            moment = datetime.fromisoformat(f"{year}-{found['month']}-{found['day']}T{found['time']}+00:00")
        except ValueError:
            continue
        # Clocks differ a little.
        if moment <= now + timedelta(days=1):
            return moment
    return None


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text, strict=False))
        except ValueError:
            return text[1:-1]
    return text.strip("\n")
