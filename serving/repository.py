"""A model repository that changes while a server watches it: versions are added, and the traffic is routed to them.

A change is three renames: the new version's folder, the configuration, the manifest. `recover` completes or undoes what
a kill between them left. Where the model is a Triton model of its own (`serving.libtorch`) its version goes in by a
change of its own, before; its configuration stays, since all of its versions are there for whoever asks.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tritonclient.grpc.model_config_pb2 as triton
from google.protobuf import text_format

from common.artefacts import MANIFEST, PYTHON_CACHE, read_manifest, sha256
from common.errors import UserError
from serving import MODEL, RANKER
from serving.runtime.shares import DEPLOYMENT, SHARES, read_shares, write_shares

CONFIG = f"{MODEL}/config.pbtxt"
_NEXT = ".manifest.next"


def read_config(repository: Path, model: str = MODEL) -> triton.ModelConfig:
    """The configuration of a model."""
    return text_format.Parse((repository / model / "config.pbtxt").read_text(encoding="utf-8"), triton.ModelConfig())


def current_shares(config: triton.ModelConfig) -> dict[int, float]:
    """Version -> share of the sessions."""
    found = read_shares({"parameters": {k: {"string_value": v.string_value} for k, v in config.parameters.items()}})
    return found or {int(config.version_policy.specific.versions[-1]): 1.0}


def versions(repository: Path, model: str = MODEL) -> list[int]:
    """The versions of a model that are there, ascending."""
    return sorted(int(path.name) for path in (repository / model).iterdir() if path.is_dir() and path.name.isdigit())


def models(repository: Path) -> list[str]:
    """The models that have versions: `RANKER`, where there is one, and then `MODEL`, which asks it."""
    return [name for name in (RANKER, MODEL) if (repository / name).is_dir()]


def change(
    repository: Path, shares: Mapping[int, float], add: Path | None = None, remove: tuple[int, ...] = ()
) -> triton.ModelConfig:
    """Route the sessions anew, with a new version or without.

    Parameters
    ----------
    repository : Path
        As `nextitem export` wrote it.
    shares : mapping of int to float
        Version -> its share of the sessions.
    add : Path, optional
        Folder of a new version, on the same file system; its name is its number. It is moved.
    remove : tuple of int
        Versions to delete afterwards, of all models.

    Returns
    -------
    ModelConfig
        The new configuration.
    """
    manifest = json.loads((repository / MANIFEST).read_text(encoding="utf-8"))
    config = read_config(repository)
    deployment = int(config.parameters[DEPLOYMENT].string_value or 0) + 1
    config.parameters[DEPLOYMENT].string_value = str(deployment)
    config.parameters[SHARES].string_value = write_shares(shares)
    # The newest of them answers, and hands the others their share.
    del config.version_policy.specific.versions[:]
    config.version_policy.specific.versions.append(max(shares))
    partial = repository.parent / f".{repository.name}.config-{os.getpid()}"
    partial.write_text(text_format.MessageToString(config), encoding="utf-8")
    gone = tuple(f"{name}/{version}/" for name in models(repository) for version in remove)
    files = {name: facts for name, facts in manifest["files"].items() if not name.startswith(gone or ("\0",))}
    files[CONFIG] = _facts(partial)
    moves = []
    if add is not None:
        files |= _listed(add, MODEL)
        moves.append((add, repository / MODEL / add.name))
        manifest["report"]["highest"] = int(add.name)
    manifest["files"] = files
    manifest["report"] |= {"version": max(shares), "deployment": deployment}
    history = manifest["report"].setdefault("history", [])
    history.append({str(version): share for version, share in shares.items()})
    _commit(repository, manifest, [*moves, (partial, repository / CONFIG)])
    for version in remove:
        for name in reversed(models(repository)):
            shutil.rmtree(repository / name / str(version), ignore_errors=True)
    return config


def add_ranker(repository: Path, folder: Path) -> None:
    """Bring in a version of `RANKER`, which nobody asks yet; parameters as for `change`."""
    manifest = json.loads((repository / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"] |= _listed(folder, RANKER)
    manifest["report"]["highest"] = int(folder.name)
    _commit(repository, manifest, [(folder, repository / RANKER / folder.name)])


def remove_ranker(repository: Path, version: int) -> None:
    """Take out a version of `RANKER` that nobody asks."""
    manifest = json.loads((repository / MANIFEST).read_text(encoding="utf-8"))
    gone = f"{RANKER}/{version}/"
    manifest["files"] = {name: facts for name, facts in manifest["files"].items() if not name.startswith(gone)}
    _commit(repository, manifest, [])
    shutil.rmtree(repository / RANKER / str(version))


def _commit(repository: Path, manifest: Mapping[str, Any], moves: list[tuple[Path, Path]]) -> None:
    following = repository.parent / f".{repository.name}.manifest-{os.getpid()}"
    following.write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    following.rename(repository / _NEXT)
    for source, target in moves:
        source.rename(target)
    (repository / _NEXT).rename(repository / MANIFEST)


def recover(repository: Path | str) -> dict[str, Any]:
    """Complete or undo a change that was cut off, then verify the repository; returns its manifest.

    Raises
    ------
    UserError
        When there is no repository, or it was altered.
    """
    repository = Path(repository)
    following = repository / _NEXT
    if following.is_file() and (repository / MANIFEST).is_file():
        wanted = json.loads(following.read_text(encoding="utf-8"))["files"]
        # The configuration is moved last, or stays: when it is the wanted one, files can be missing only then.
        there = all((repository / name).is_file() for name in wanted)
        if there and sha256(repository / CONFIG) == wanted[CONFIG]["sha256"]:
            following.rename(repository / MANIFEST)
        else:
            following.unlink()
    if (repository / MANIFEST).is_file() and (repository / MODEL).is_dir():
        listed = read_manifest(repository, "model_repository", "nextitem export", verify=False)["files"]
        for model in models(repository):
            for version in versions(repository, model):
                if not any(name.startswith(f"{model}/{version}/") for name in listed):
                    shutil.rmtree(repository / model / str(version))
    return read_manifest(repository, "model_repository", "nextitem export")


def _listed(folder: Path, model: str) -> dict[str, dict[str, Any]]:
    """What the manifest says of the files of a version."""
    paths = [path for path in sorted(folder.iterdir()) if path.name != PYTHON_CACHE]
    return {f"{model}/{folder.name}/{path.name}": _facts(path) for path in paths}


def _facts(path: Path) -> dict[str, Any]:
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def check_shares(shares: Mapping[int, float], there: list[int]) -> None:
    """Refuse shares of versions that are not there, or that do not add up to 1."""
    for version in shares:
        if version not in there:
            raise UserError(f"there is no version {version}: {', '.join(map(str, there))} are there")
    if min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise UserError("the shares must be above 0 and add up to 1")
