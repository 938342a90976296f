"""What a person needs from Triton's log: the reason why it did not start, and the lines worth seeing."""

from __future__ import annotations

import re
from collections.abc import Callable

_NOISE = re.compile(r"CUDA|Cuda|NVML|DCGM|pinned memory|pinned system memory|GPU metrics")
_LOG_LINE = re.compile(r'^[IWEF]\d{4} \S+ \d+ [\w.]+:\d+\] "?(?P<message>.*?)"?$')


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
            return re.sub(r"^failed to load '(\S+)' version \d+: (Internal: )?", r"model '\1': ", message)
    return None
