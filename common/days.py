"""The day folders that ``nextitem preprocess --append`` adds to features, and the windows that can be read.

``features/days/2026-11-20`` is an artefact of its own: parquet files and a manifest that names the features whose
fitted workflow made it. The features' own manifest does not know it, so appending changes nothing for a trained model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from common.artefacts import MANIFEST, identity, read_manifest
from common.errors import UserError

DAYS, DAY = "days", "day"
SPLIT_WINDOWS = ("train", "valid", "test")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MADE_BY = "nextitem preprocess --append"


def list_days(features: Path | str) -> list[str]:
    """The days that were appended, as ISO dates, ascending.

    Raises
    ------
    UserError
        When ``features/days`` holds something that is no day.
    """
    folder, found = Path(features) / DAYS, set()
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name.startswith(".") and not entry.name.endswith(".previous"):
            continue  # an append is under way, or was killed
        # A replacement that was cut off between its two renames is undone when the day is read.
        name = entry.name.removeprefix(".").removesuffix(".previous")
        if not _is_date(name) or not entry.is_dir():
            raise UserError(f"{entry} is no day of the features: remove it")
        found.add(name)
    return sorted(found)


def read_day(features: Path | str, day: str, verify: bool = True) -> dict[str, Any]:
    """Read a day's manifest, and check that these features made it.

    Parameters
    ----------
    features : Path or str
        The features folder, itself verified.
    day : str
        ISO date.
    verify : bool
        Compare the SHA-256 of every file, too.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    UserError
        When the day is missing, altered, of other features, or holds files that are not parquet.
    """
    folder = Path(features) / DAYS / day
    manifest = read_manifest(folder, DAY, _MADE_BY, verify)
    if manifest.get("inputs", {}).get("features") != identity(features):
        raise UserError(f"{folder} was made by other features than {features}: remove it and append its files again")
    foreign = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    foreign = [path for path in foreign if path != folder / MANIFEST]
    if foreign:
        raise UserError(f"{min(foreign)} is no parquet file, and a day holds nothing else: remove it")
    return manifest


def days_in(features: Path | str, window: str) -> list[str]:
    """The days that a window names: a date, or those of a range of dates that are there.

    Parameters
    ----------
    features : Path or str
        The features folder.
    window : str
        ``2026-11-20``, or ``2026-11-14..2026-11-20`` with both ends.

    Returns
    -------
    list of str
        ISO dates, ascending; none for ``train``, ``valid`` and ``test``.

    Raises
    ------
    UserError
        When the window is written otherwise, or no such day was appended.
    """
    if window in SPLIT_WINDOWS:
        return []
    first, dots, last = window.partition("..")
    last = last if dots else first
    if not (_is_date(first) and _is_date(last)):
        raise UserError(
            f"--window {window}: write train, valid, test, a day such as 2026-11-20, or days 2026-11-14..2026-11-20"
        )
    days = list_days(features)
    found = [day for day in days if first <= day <= last]
    if not found:
        there = f"there are {len(days)} days, {days[0]} to {days[-1]}" if days else "no day was appended"
        raise UserError(f"{Path(features) / DAYS} holds no day of --window {window}: {there} ('{_MADE_BY}' adds days)")
    return found


def window_files(features: Path | str, window: str) -> list[Path]:
    """The parquet files of a window, its days verified.

    Parameters
    ----------
    features : Path or str
        The features folder, itself verified.
    window : str
        ``train``, ``valid``, ``test``, or as `days_in` takes it.

    Raises
    ------
    UserError
        When there is no such window, or a day of it cannot be trusted.
    """
    features, days = Path(features), days_in(features, window)
    if not days:
        files = sorted((features / window).glob("*.parquet"))
        if not files:
            raise UserError(f"{features / window} holds no parquet files: run 'nextitem preprocess' first")
        return files
    for day in days:
        read_day(features, day)
    return [path for day in days for path in session_files(features / DAYS / day)]


def session_files(folder: Path) -> list[Path]:
    """The files of a day that hold sessions; those in folders of the day hold raw events."""
    return sorted(folder.glob("*.parquet"))


def day_identities(features: Path | str, windows: Sequence[str]) -> Mapping[str, str]:
    """What a manifest says of the days that were read: ``days/2026-11-20`` -> identity."""
    days = sorted({day for window in windows for day in days_in(features, window)})
    return {f"{DAYS}/{day}": identity(Path(features) / DAYS / day) for day in days}


def refuse_days(features: Path | str, refit: bool) -> None:
    """Refuse to replace features that have days, unless that is what was asked for.

    Raises
    ------
    UserError
        When there are days and `refit` is not set.
    """
    days = [] if refit else list_days(features)
    if days:
        many = f"{len(days)} days" if len(days) > 1 else "1 day"
        raise UserError(
            f"{Path(features) / DAYS} holds {many} that a new fit would invalidate: give --refit to replace "
            f"{'them' if len(days) > 1 else 'it'}, or another --output"
        )


def _is_date(text: str) -> bool:
    try:
        return bool(_DATE.fullmatch(text) and date.fromisoformat(text))
    except ValueError:
        return False
