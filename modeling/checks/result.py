"""What a check says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """The outcome of one check.

    Attributes
    ----------
    name : str
        The check.
    passed : bool
        Whether the model is right.
    deviation : float
        What was measured: the largest difference of scores, as a share of their spread; recall@1 for "learns".
        NaN where it did not come to a measurement.
    limit : float
        What it may be at most; at least for "learns".
    detail : str
        One line: what was compared, or why it failed.
    """

    name: str
    passed: bool
    deviation: float
    limit: float
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data; null for what was not measured."""
        deviation, limit = (value if math.isfinite(value) else None for value in (self.deviation, self.limit))
        return {"passed": self.passed, "deviation": deviation, "limit": limit, "detail": self.detail}


class Failed(Exception):
    """A check cannot pass, for a reason that is no number."""


def at_most(name: str, deviation: float, limit: float, detail: str) -> Result:
    """Passed when the deviation is a number and small enough."""
    return Result(name, deviation <= limit, deviation, limit, detail)
