"""The processes that compute the models' answers: Triton goes on calling a model ready whose process has died.

Requests that such a process held are never answered, later ones fail, and nothing starts it again. A server in that
state is better ended, so that whoever watches it starts it anew.
"""

from __future__ import annotations

import time
from pathlib import Path

# The system shows fifteen characters of a process's name.
_NAME = "triton_python_backend_stub"[:15]


def count_stubs(pid: int) -> tuple[int, int]:
    """How many of a tritonserver's stubs run, and how many have ended without its notice.

    Parameters
    ----------
    pid : int
        Of the server. The zombies among its children are those that it does not know of.

    Returns
    -------
    tuple of int
        Both 0 where the system does not tell.
    """
    alive = dead = 0
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = file.read_text(encoding="ascii").split()
        except OSError:  # a thread that has ended meanwhile
            continue
        for child in children:
            try:
                before, _, after = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(") ")
            except OSError:
                continue
            if before.partition(" (")[2] == _NAME:
                alive, dead = (alive, dead + 1) if after[0] in "ZX" else (alive + 1, dead)
    return alive, dead


class StubWatch:
    """Tells when none of a server's stubs is left.

    A stub of a version that does not load may stay as a zombie beside those that answer, and one that is unloaded is
    a zombie for a moment; both are no reason to worry.

    Parameters
    ----------
    every_s, patience_s : float
        How often to look, and how long there must be none.
    """

    def __init__(self, every_s: float = 2.0, patience_s: float = 3.0) -> None:
        self._every_s, self._patience_s = every_s, patience_s
        self._next = 0.0
        self._since: float | None = None

    def all_gone(self, pid: int | None) -> bool:
        """Whether the stubs of the server `pid` have all ended by themselves; cheap when asked often."""
        now = time.monotonic()
        if pid is not None and now >= self._next:
            self._next = now + self._every_s
            alive, dead = count_stubs(pid)
            self._since = (self._since or now) if dead and not alive else None
        return self._since is not None and now - self._since >= self._patience_s
