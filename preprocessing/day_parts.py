"""The parts of day folders: which files they were made of, and what they left open.

A part's name is the hash of its batch's files. Nothing here trusts a path or a date of a file: what a file is, its
content says; its name only tells that something was appended before under it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from common.artefacts import sha256
from common.days import DAYS, list_days, read_day
from common.errors import UserError
from preprocessing.kernels import DAY

# The folder inside a day's for the raw events of open sessions.
OPEN = "open"


@dataclass(frozen=True)
class Source:
    """A file that was appended.

    Attributes
    ----------
    name : str
        Its path as seen from the folder that the features are in.
    sha256 : str
        Of its content.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class Part:
    """What a batch gave to a day.

    Attributes
    ----------
    day : str
        ISO date.
    name : str
        The hash of the batch's files, which its own files carry in their names.
    sources : tuple of Source
        All files of the batch.
    ends : int
        The last moment of the batch, nanoseconds since 1970.
    facts : mapping
        What the day's manifest says of it.
    """

    day: str
    name: str
    sources: tuple[Source, ...]
    ends: int
    facts: Mapping[str, Any]

    def files(self, folder: Path) -> list[Path]:
        """Its files in a day's folder."""
        return sorted(folder.rglob(f"*{self.name}*.parquet"))


def sources_of(paths: Sequence[Path], features: Path) -> tuple[Source, ...]:
    """Name and content of files, by name.

    Raises
    ------
    UserError
        When two files have the same content.
    """
    home = features.resolve().parent
    named = {path: Source(Path(os.path.relpath(path.resolve(), home)).as_posix(), sha256(path)) for path in paths}
    seen: dict[str, Path] = {}
    for path, source in named.items():
        if source.sha256 in seen:
            raise UserError(f"{path} has the same content as {seen[source.sha256]}: append it once")
        seen[source.sha256] = path
    return tuple(sorted(named.values(), key=lambda source: source.name))


def name_of(sources: Iterable[Source]) -> str:
    """The name that parts made of these files have, in whatever order they came."""
    return hashlib.sha256("".join(sorted(source.sha256 for source in sources)).encode()).hexdigest()[:16]


def read_parts(features: Path) -> list[Part]:
    """The parts of all days, by day."""
    parts = []
    for day in list_days(features):
        for facts in read_day(features, day, verify=False)["report"]["parts"]:
            sources = tuple(Source(**source) for source in facts["sources"])
            parts.append(Part(day, facts["name"], sources, facts["ends"], facts))
    return parts


def superseded(parts: Sequence[Part], sources: Sequence[Source], replace: bool) -> list[Part]:
    """The parts that a batch of these files takes the place of.

    Raises
    ------
    UserError
        When a part was made of some of the files and others, or, without `replace`, of a file of the same name with
        other content.
    """
    contents, names = {source.sha256 for source in sources}, {source.name for source in sources}
    stale = []
    for part in parts:
        changed = [source for source in part.sources if source.sha256 not in contents and source.name in names]
        apart = [source for source in part.sources if source.sha256 not in contents and source.name not in names]
        if len(apart) == len(part.sources):
            continue
        if apart:
            given = next(source for source in part.sources if source not in apart)
            raise UserError(
                f"{given.name} was appended to {part.day} together with {apart[0].name}, whose sessions cannot be told "
                "apart: append all files of that call again"
            )
        if changed and not replace:
            raise UserError(
                f"{changed[0].name} was appended to {part.day} before with other content: give --replace to put the "
                "new in its place, or rename the file if it holds other events"
            )
        stale.append(part)
    return stale


def open_events(features: Path, parts: Sequence[Part], ends: int, key: str) -> pa.Table | None:
    """Raw events of the sessions that were open when the batches before ended.

    Parameters
    ----------
    features : Path
        The features folder.
    parts : sequence of Part
        Of other batches.
    ends : int
        The last moment of this batch: what ends later does not come before it.
    key : str
        The column of session keys.

    Returns
    -------
    pyarrow.Table or None
        The columns of the contract, time as int64 nanoseconds. A batch goes on with what was open before it, so of
        each key the newest batch tells all. Batches that end within a day of the newest are taken together: of several
        log files a day, each may leave something open.
    """
    before = sorted((part for part in parts if part.ends < ends), key=lambda part: part.ends, reverse=True)
    tables: list[pa.Table] = []
    seen: set[Any] = set()
    for part in before:
        path = features / DAYS / part.day / OPEN / f"{part.name}.parquet"
        if before[0].ends - part.ends >= DAY or not path.is_file():
            continue
        read_day(features, part.day)
        table = pa.parquet.read_table(path)
        keys = table.column(key)
        if seen:
            table = table.filter(pc.invert(pc.is_in(keys, pa.array(list(seen), keys.type))))
        seen.update(pc.unique(keys).to_pylist())
        tables.append(table)
    return pa.concat_tables(tables) if tables else None
