"""Which versions answer, and for what share of the sessions: kept in the Triton configuration of the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# Keys of the configuration's parameters. A deployment's number tells whether the server has taken it up.
SHARES, DEPLOYMENT = "shares", "deployment"


def read_shares(config: Mapping[str, Any]) -> dict[int, float]:
    """Version -> share, from the configuration as JSON; empty where it says nothing."""
    text = config.get("parameters", {}).get(SHARES, {}).get("string_value", "{}")
    return {int(version): float(share) for version, share in json.loads(text).items()}


def write_shares(shares: Mapping[int, float]) -> str:
    """The inverse of `read_shares`: the value of the parameter."""
    return json.dumps({str(version): share for version, share in sorted(shares.items())})
