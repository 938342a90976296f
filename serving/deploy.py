"""New versions under load: `nextitem deploy`, `nextitem route` and `nextitem rollback`.

The server watches its repository (Triton's poll mode). It loads the new version beside the old one, hands over when the
new one is ready, and keeps the old one serving when it is not: no request fails on the way. Nothing of it needs
Triton's load and unload calls, which would let a client run code of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tritonclient.grpc.model_config_pb2 as triton

from common.errors import UserError
from common.progress import step
from serving import MODEL, RANKER
from serving.address import Address, ask_http
from serving.export import export
from serving.repository import (
    add_ranker,
    change,
    check_shares,
    current_shares,
    models,
    read_config,
    recover,
    remove_ranker,
    versions,
)
from serving.runtime.shares import DEPLOYMENT
from serving.security import TOKEN_VARIABLE
from serving.settings import Backend, ServingSettings


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
    there = {number for name in models(repository) for number in versions(repository, name)}
    # A number that a version had is not given again: the server remembers why it could not load that one.
    version = max(*there, manifest["report"].get("highest", 0)) + 1
    backend: Backend = "pytorch" if RANKER in models(repository) else "python"
    if not 0 < share <= 1:
        raise UserError(f"--share is {share:g}: give the new version a share above 0, at most 1")
    new = {version: 1.0} if share == 1 else {max(shares): 1 - share, version: share}
    with TemporaryDirectory(prefix=f".{repository.name}.deploy-", dir=repository.resolve().parent) as work:
        staged = Path(work) / "repository"
        export(features, model, staged, settings, version, backend=backend)
        _same_face(before, read_config(staged))
        if backend == "pytorch":
            _same_features(read_config(repository, RANKER), read_config(staged, RANKER))
            _bring_ranker(repository, staged / RANKER / str(version), url, timeout)
        spare = [one for one in sorted(there) if one not in new and one not in shares]
        remove = tuple(spare[: max(0, len(there) + 1 - keep)])
        config = change(repository, new, staged / MODEL / str(version), remove)
    return _take_up(repository, config, shares, url, timeout, version) | {"version": version}


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
    if differing := _differing(before, after):
        raise UserError(
            f"clients would have to send other columns than now ({differing}): export into another folder, and move "
            "the clients to a server on it"
        )


def _same_features(before: triton.ModelConfig, after: triton.ModelConfig) -> None:
    if differing := _differing(before, after):
        raise UserError(
            f"the versions of {RANKER} must take the same features, and the new one takes others ({differing}): export "
            "into another folder, and move the clients to a server on it"
        )


def _differing(before: triton.ModelConfig, after: triton.ModelConfig) -> str:
    """The inputs that only one of the two takes, or takes as another type."""
    faces = [{part.name: (part.data_type, part.optional) for part in config.input} for config in (before, after)]
    return ", ".join(sorted({name for name, _ in faces[0].items() ^ faces[1].items()}))


def _bring_ranker(repository: Path, folder: Path, url: str | None, timeout: float) -> None:
    """Bring in the model before the version that asks it: one that cannot be loaded is then never asked."""
    add_ranker(repository, folder)
    if url is None:
        return
    version = int(folder.name)
    try:
        _wait(url, RANKER, version, None, timeout)
    except UserError as error:
        remove_ranker(repository, version)
        raise UserError(f"{error}; {MODEL} stays as it was") from error


def _take_up(
    repository: Path,
    config: triton.ModelConfig,
    before: Mapping[int, float],
    url: str | None,
    timeout: float,
    new: int | None = None,
) -> dict[str, Any]:
    shares = current_shares(config)
    facts = {"shares": {str(version): share for version, share in shares.items()}, "live": False}
    if url is None:
        return facts
    try:
        newest = int(config.version_policy.specific.versions[0])
        _wait(url, MODEL, newest, config.parameters[DEPLOYMENT].string_value, timeout)
    except UserError as error:
        # A version that cannot be loaded must not be in the way of the next one.
        change(repository, before, remove=() if new is None else (new,))
        raise UserError(f"{error}; {MODEL} stays as it was") from error
    return facts | {"live": True}


def _wait(url: str, name: str, version: int, deployment: str | None, timeout: float) -> None:
    """Wait until a version of a model answers, as of a deployment if one is given."""
    with step(f"Waiting for version {version} of {name} at {url}"):
        deadline = time.monotonic() + timeout
        path = f"/v2/models/{name}/versions/{version}"
        while time.monotonic() < deadline:
            status, found = _ask(url, "GET", f"{path}/config")
            known = found.get("parameters", {}).get(DEPLOYMENT, {}).get("string_value") if status == 200 else None
            taken = status == 200 and deployment in (None, known)
            if taken and _ask(url, "GET", f"{path}/ready")[0] == 200:
                return
            for model in _ask(url, "POST", "/v2/repository/index")[1]:
                failed = model.get("state") == "UNAVAILABLE" and model.get("reason", "unloaded") != "unloaded"
                if model["name"] == name and model.get("version") == str(version) and failed:
                    raise UserError(f"the server at {url} could not load version {version}: {_line(model['reason'])}")
            time.sleep(0.25)
    raise UserError(f"the server at {url} did not take up version {version} in {timeout:g} s")


def _ask(url: str, method: str, path: str) -> tuple[int, Any]:
    status, answer = ask_http(Address.parse(url, "http"), method, path)
    if status == 401:
        raise UserError(f"the server at {url} refused: {answer.get('error')} (set {TOKEN_VARIABLE})")
    return status, answer


def _line(reason: str) -> str:
    return reason.split("\n")[0]
