"""New versions under load: `nextitem deploy`, `nextitem route` and `nextitem rollback`.

The server watches its repository (Triton's poll mode). It loads the new version beside the old one, hands over when the
new one is ready, and keeps the old one serving when it is not: no request fails on the way. Nothing of it needs
Triton's load and unload calls, which would let a client run code of its own.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tritonclient.grpc.model_config_pb2 as triton

from common.errors import UserError
from common.progress import step
from serving import MODEL
from serving.export import export
from serving.repository import change, check_shares, current_shares, read_config, recover, versions
from serving.runtime.shares import DEPLOYMENT
from serving.settings import ServingSettings


def deploy(
    features: Path | str,
    model: Path | str,
    repository: Path | str = "model_repository",
    settings: ServingSettings | None = None,
    share: float = 1.0,
    keep: int = 2,
    url: str | None = None,
    timeout: float = 240.0,
) -> dict[str, Any]:
    """Add a new version to a repository, and route sessions to it.

    Parameters
    ----------
    features, model : Path or str
        As for `serving.export.export`.
    repository : Path or str
        A repository that exists; a server may be running on it.
    settings : ServingSettings, optional
        By default those of the repository. The number of instances stays in any case.
    share : float
        The new version's share of the sessions, above 0; the others stay with the version that answers now.
    keep : int
        How many versions stay, the newest and those in use among them.
    url : str, optional
        ``host:port`` of the server's HTTP: waits until it answers with the new version, or takes everything back.
    timeout : float
        Seconds to wait.

    Returns
    -------
    dict
        ``version``, ``shares``, and whether they are ``live``.

    Raises
    ------
    UserError
        When the export is refused, clients would have to send other columns, or the server does not take the version.
    """
    repository = Path(repository)
    manifest = recover(repository)
    settings = settings or ServingSettings(**manifest["settings"])
    before = read_config(repository)
    shares = current_shares(before)
    version = versions(repository)[-1] + 1
    if not 0 < share <= 1:
        raise UserError(f"--share is {share:g}: give the new version a share above 0, at most 1")
    new = {version: 1.0} if share == 1 else {max(shares): 1 - share, version: share}
    with TemporaryDirectory(prefix=f".{repository.name}.deploy-", dir=repository.resolve().parent) as work:
        staged = Path(work) / "repository"
        export(features, model, staged, settings, version)
        _same_face(before, read_config(staged))
        there = [*versions(repository), version]
        spare = [one for one in there if one not in new and one not in shares]
        remove = tuple(spare[: max(0, len(there) - keep)])
        config = change(repository, new, staged / MODEL / str(version), remove)
    return _take_up(repository, config, shares, url, timeout) | {"version": version}


def route(
    repository: Path | str, shares: Mapping[int, float], url: str | None = None, timeout: float = 240.0
) -> dict[str, Any]:
    """Route the sessions to versions that are there: one alone, or several by a hash of the session's id.

    Raises
    ------
    UserError
        When a version is not there, the shares do not add up to 1, or the server does not take them up.
    """
    repository = Path(repository)
    recover(repository)
    check_shares(shares, versions(repository))
    before = current_shares(read_config(repository))
    return _take_up(repository, change(repository, shares), before, url, timeout)


def rollback(repository: Path | str, url: str | None = None, timeout: float = 240.0) -> dict[str, Any]:
    """Go back to the newest version that is older than the newest one in use.

    Raises
    ------
    UserError
        When there is no older version, or the server does not take it up.
    """
    repository = Path(repository)
    recover(repository)
    newest = max(current_shares(read_config(repository)))
    older = [version for version in versions(repository) if version < newest]
    if not older:
        raise UserError(f"{repository} holds no version older than {newest}")
    return route(repository, {older[-1]: 1.0}, url, timeout)


def _same_face(before: triton.ModelConfig, after: triton.ModelConfig) -> None:
    faces = [{part.name: (part.data_type, part.optional) for part in config.input} for config in (before, after)]
    if faces[0] != faces[1]:
        differing = ", ".join(sorted({name for name, _ in faces[0].items() ^ faces[1].items()}))
        raise UserError(
            f"clients would have to send other columns than now ({differing}): export into another folder, and move "
            "the clients to a server on it"
        )


def _take_up(
    repository: Path, config: triton.ModelConfig, before: Mapping[int, float], url: str | None, timeout: float
) -> dict[str, Any]:
    shares = current_shares(config)
    facts = {"shares": {str(version): share for version, share in shares.items()}, "live": False}
    if url is None:
        return facts
    try:
        _wait(url, config, timeout)
    except UserError as error:
        change(repository, before)
        raise UserError(f"{error}; {MODEL} stays as it was") from error
    return facts | {"live": True}


def _wait(url: str, config: triton.ModelConfig, timeout: float) -> None:
    version = int(config.version_policy.specific.versions[0])
    wanted = config.parameters[DEPLOYMENT].string_value
    with step(f"Waiting for version {version} at {url}"):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            status, found = _ask(url, "GET", f"/v2/models/{MODEL}/versions/{version}/config")
            taken = status == 200 and found["parameters"].get(DEPLOYMENT, {}).get("string_value") == wanted
            if taken and _ask(url, "GET", f"/v2/models/{MODEL}/versions/{version}/ready")[0] == 200:
                return
            for model in _ask(url, "POST", "/v2/repository/index")[1]:
                failed = model.get("state") == "UNAVAILABLE" and model.get("reason", "unloaded") != "unloaded"
                if model["name"] == MODEL and model.get("version") == str(version) and failed:
                    raise UserError(f"the server at {url} could not load version {version}: {_line(model['reason'])}")
            time.sleep(0.25)
    raise UserError(f"the server at {url} did not take up version {version} in {timeout:g} s")


def _ask(url: str, method: str, path: str) -> tuple[int, Any]:
    host, _, port = url.rpartition(":")
    try:
        with closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
            connection.request(method, path, body="{}" if method == "POST" else None)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else {}
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"no server answers at {url} ({error})") from error


def _line(reason: str) -> str:
    return reason.split("\n")[0]
