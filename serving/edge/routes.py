"""Which requests get through: those that clients need, and nothing that administers."""

from __future__ import annotations

import re
from enum import Enum

from serving import RANKER
from serving.edge.refused import Refused

_MODEL = r"/v2/models/(?!\.{1,2}/|\.{1,2}$)[A-Za-z0-9_.-]{1,128}(/versions/[0-9]{1,18})?"
# The model behind the model has no limits of its own.
_INFER = re.compile(rf"(?!/v2/models/{RANKER}/){_MODEL}/infer")
_HEALTH = re.compile("/v2/health/(live|ready)")
_READ = re.compile(f"/v2|/v2/models/stats|{_MODEL}(/ready|/config|/stats)?")
_INDEX = "/v2/repository/index"


class Route(Enum):
    """What a request is about."""

    HEALTH = "health"
    READ = "read"
    INFER = "infer"
    INDEX = "index"


def find_route(method: str, path: str) -> Route:
    """What a request is about.

    Raises
    ------
    Refused
        With the status 404 for paths that no client needs, 405 for another method than the path's.
    """
    if _INFER.fullmatch(path):
        route, allowed = Route.INFER, "POST"
    elif _READ.fullmatch(path):
        route, allowed = Route.READ, "GET"
    elif _HEALTH.fullmatch(path):
        route, allowed = Route.HEALTH, "GET"
    elif path == _INDEX:
        route, allowed = Route.INDEX, "POST"
    else:
        raise Refused(404, "there is nothing for clients at this path")
    if method != allowed:
        raise Refused(405, f"this path takes {allowed}", b"Allow: %b\r\n" % allowed.encode())
    return route
