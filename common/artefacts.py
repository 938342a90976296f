"""The folders that pass between the stages: written whole or not at all, and verified when read.

``features/``, ``model/`` and ``model_repository/`` each hold a ``manifest.json`` that says what made the
folder, from which settings, and the SHA-256 of every file. A folder is written beside its target and
renamed when it is complete, so an interrupted stage leaves the previous output as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import __version__
from common.errors import UserError

MANIFEST = "manifest.json"
# Appears beside modules that were imported, and is no part of an artefact.
PYTHON_CACHE = "__pycache__"
# Folders inside an artefact for artefacts that are added later: no part of it, each is verified when it is read.
_NESTED = {"features": ("days",)}


@dataclass
class NewFolder:
    """A folder being written.

    Attributes
    ----------
    path : Path
        Where to write; it becomes the target when the ``with`` block ends without an error.
    report : dict
        Free-form JSON (counts, metrics) that goes into the manifest.
    """

    path: Path
    report: dict[str, Any] = field(default_factory=dict)


def sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(folder: Path, nested: Sequence[str] = ()) -> Iterator[Path]:
    # Nested folders are not even looked into: they may be changing.
    for entry in sorted(folder.iterdir()):
        if entry.name == PYTHON_CACHE:
            continue
        if entry.is_dir() and entry.name not in nested:
            yield from _files(entry)
        elif entry.is_file() and entry.name != MANIFEST:
            yield entry


def _partial(target: Path) -> Path:
    return target.parent / f".{target.name}.partial-{os.getpid()}"


def _previous(target: Path) -> Path:
    return target.parent / f".{target.name}.previous"


@contextmanager
def new_folder(
    target: Path | str,
    kind: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Any] | None = None,
    keep: Sequence[str] = (),
) -> Iterator[NewFolder]:
    """Write a stage's output folder atomically.

    Parameters
    ----------
    target : Path or str
        The folder to make or replace.
    kind : str
        What it is: ``"features"``, ``"day"`` (of features), ``"model"`` or ``"model_repository"``.
    settings : mapping
        JSON of the settings that the stage ran with.
    inputs : mapping, optional
        What the stage read: name -> identity (see `identity`).
    keep : sequence of str
        Names of files in the old target that the new one carries over (a tracked README).

    Yields
    ------
    NewFolder
        Its ``path`` to write into and its ``report``.

    Raises
    ------
    UserError
        When the target exists and is not a folder that a stage of this kind wrote.
    """
    target = Path(target)
    _restore(target)
    _refuse_foreign(target, kind, keep)
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{target.name}.partial-*"):
        pid = leftover.name.rpartition("-")[2]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)
    partial = _partial(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    folder = NewFolder(partial)
    try:
        yield folder
        for name in keep:
            if (target / name).is_file() and not (partial / name).exists():
                shutil.copy2(target / name, partial / name)
        manifest = {
            "kind": kind,
            "made_by": f"nextitem {__version__}",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": settings,
            "inputs": dict(inputs or {}),
            "report": folder.report,
            "files": {
                path.relative_to(partial).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
                for path in _files(partial)
                if path.relative_to(partial).as_posix() not in keep
            },
        }
        text = json.dumps(manifest, indent=2, allow_nan=False)
        (partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
        previous = _previous(target)
        shutil.rmtree(previous, ignore_errors=True)
        if target.exists():
            target.rename(previous)
        partial.rename(target)
        shutil.rmtree(previous, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        _restore(target)
        raise


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _restore(target: Path) -> None:
    """Undo a replacement that was cut off between its two renames."""
    if _previous(target).exists() and not target.exists():
        _previous(target).rename(target)


def tidy(parent: Path) -> None:
    """Undo and remove what killed processes left of artefacts in a folder, when no other process writes there."""
    for previous in parent.glob(".*.previous"):
        target = parent / previous.name.removeprefix(".").removesuffix(".previous")
        _restore(target)
        shutil.rmtree(previous, ignore_errors=True)
    for partial in parent.glob(".*.partial-*"):
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_foreign(target: Path, kind: str, keep: Sequence[str]) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{target} is a file: name a folder to write the {kind} into")
    foreign = [path.name for path in target.iterdir() if path.name not in keep]
    if not foreign:
        return
    manifest = target / MANIFEST
    if not manifest.is_file() or _load(manifest).get("kind") != kind:
        raise UserError(f"{target} exists and is not a {kind} folder: name another --output, or remove it first")


def _load(manifest: Path) -> dict[str, Any]:
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{manifest} cannot be read ({error}): make the folder anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{manifest} is not a manifest: make the folder anew")
    return content


def read_manifest(folder: Path | str, kind: str, made_by: str, verify: bool = True) -> dict[str, Any]:
    """Read a stage's manifest and check the folder against it.

    Parameters
    ----------
    folder : Path or str
        The artefact folder.
    kind : str
        The kind that it must be.
    made_by : str
        The command that makes such a folder, for the error message.
    verify : bool
        Compare the SHA-256 of every file with the manifest. Files that the manifest does not list are
        refused too, since a pickle among them might be loaded.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    UserError
        When the folder is missing, of another kind, incomplete or altered.
    """
    folder = Path(folder)
    _restore(folder)
    path = folder / MANIFEST
    name = kind.replace("_", " ")
    if not path.is_file():
        raise UserError(f"{folder} holds no {name} (there is no {MANIFEST}): run '{made_by}' first")
    manifest = _load(path)
    if manifest.get("kind") != kind:
        raise UserError(f"{folder} holds {manifest.get('kind')!r}, not a {name}: run '{made_by}' first")
    if verify:
        _verify(folder, manifest)
    return manifest


def _verify(folder: Path, manifest: Mapping[str, Any]) -> None:
    listed: Mapping[str, Mapping[str, Any]] = manifest.get("files", {})
    for name, facts in listed.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing although {MANIFEST} lists it: make the folder anew")
        if path.stat().st_size != facts["bytes"] or sha256(path) != facts["sha256"]:
            raise UserError(f"{path} was changed after it was written (SHA-256 differs): make the folder anew")
    nested = _NESTED.get(str(manifest.get("kind")), ())
    unlisted = {path.relative_to(folder).as_posix() for path in _files(folder, nested)} - set(listed)
    # A README is for people.
    unlisted -= {"README.md"}
    if unlisted:
        raise UserError(f"{folder / min(unlisted)} is not in {MANIFEST}: remove it or make the folder anew")


def identity(folder: Path | str) -> str:
    """The SHA-256 of a folder's manifest: names exactly one content of the folder."""
    return sha256(Path(folder) / MANIFEST)
