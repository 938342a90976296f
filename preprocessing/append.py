"""New days for features that exist: events go through the fitted workflow, and nothing is fitted again.

The files of one call are a batch. Each UTC day that its sessions end on gets a part, beside the parts of other batches,
in ``features/days/<day>/``. A day is written whole or not at all, and the days in ascending order.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from common.artefacts import identity, new_folder, read_manifest, tidy
from common.days import DAY, DAYS, read_day, session_files
from common.errors import UserError
from common.progress import say, step
from preprocessing.batch import Batch, make_batch
from preprocessing.cluster import Workers
from preprocessing.contract import agree
from preprocessing.day_parts import Part, read_parts, sources_of, superseded
from preprocessing.drift import DRIFTED, Reference
from preprocessing.engine import nvtabular
from preprocessing.feature_settings import TIME_FEATURES
from preprocessing.files import expand
from preprocessing.preprocess import PARTITION_EVENTS, load_workflow
from preprocessing.settings import Dataset
from preprocessing.shuffle import Spill
from preprocessing.workflow import item_encoder

_WARN_UNKNOWN = 0.1
# Items are older every day, whenever the workflow was fitted.
_GROWS = TIME_FEATURES["age"]
# What may differ from the description that the features were made with: it does not say what columns mean.
_FREE = ("split.", "events.files", "events.max_bad_share")


def append(
    dataset: Dataset,
    features: Path | str,
    files: Sequence[Path | str],
    replace: bool = False,
    partition_events: int = PARTITION_EVENTS,
    cluster: str | None = None,
) -> dict[str, Any]:
    """Transform new events with the fitted workflow and add them as days.

    Appending the same files again replaces what they gave, with the same result. Killed at any moment, the folder stays
    valid: days are whole or absent, and the same call completes them.

    Parameters
    ----------
    dataset : Dataset
        The description that the features were made with.
    features : Path or str
        The folder that `preprocessing.preprocess.preprocess` wrote; all of it but ``days/`` stays as it is.
    files : sequence of Path or str
        csv and parquet files or patterns, relative to the current folder or absolute.
    replace : bool
        Files that were appended under the same name with other content take the place of those.
    partition_events, cluster
        As for `preprocessing.preprocess.preprocess`.

    Returns
    -------
    dict
        ``events_read``, ``events_carried`` (of sessions that were open before), ``events_dropped`` by reason,
        ``events``, ``sessions``, ``continued_sessions`` of this call; ``days``: ISO date -> the report in the day's
        manifest, all its parts together; ``days_removed``; ``warnings``.

    Raises
    ------
    UserError
        When the features cannot be trusted or were described otherwise, the files do not fit them, or were appended
        before in another combination or with other content.
    """
    features = Path(features)
    manifest = read_manifest(features, "features", "nextitem preprocess")
    if "raw" not in manifest["report"].get("data", {}):
        raise UserError(f"{features} was made by an older nextitem, without counts to compare with: make it anew")
    _same_description(dataset, manifest["settings"], features)
    paths = _find(files)
    request = json.loads((features / "request.json").read_text(encoding="utf-8"))
    wire = {column["name"]: column["type"] for column in request["columns"]}
    contract = agree(dataset, paths, partition_events, fixed=wire)
    with _alone(features) as scratch, Workers(cluster) as workers:
        sources, parts = sources_of(paths, features), read_parts(features)
        stale = superseded(parts, sources, replace)
        others = [part for part in parts if part not in stale]
        workflow = load_workflow(features)
        job = Spill(dataset, contract, scratch, max(1, -(-contract.rows // partition_events)))
        batch = make_batch(job, workers, workflow, features, others, sources)
        days = _Days(features, others, manifest["report"], dataset, workflow)
        written, removed = days.write(batch, {part.day for part in stale})
    result = batch.facts | {"days": written, "days_removed": removed}
    return result | {"warnings": _warnings(written, features)}


def _same_description(dataset: Dataset, made_with: Mapping[str, Any], features: Path) -> None:
    mine = dict(_flat(dataset.model_dump(mode="json", include=set(Dataset.model_fields) - {"data_root"})))
    theirs = dict(_flat(made_with))
    for key in [*theirs, *mine]:
        if not key.startswith(_FREE) and mine.get(key) != theirs.get(key):
            raise UserError(
                f"{features} was made with {key} = {theirs.get(key)!r}, but the description says {mine.get(key)!r}: "
                "make them the same, or refit with 'nextitem preprocess'"
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _find(files: Sequence[Path | str]) -> list[Path]:
    """The files, each once, by name: the order in which they are given changes nothing."""
    found: set[Path] = set()
    for name in map(str, files):
        try:
            found |= {Path(name)} if Path(name).is_file() else set(expand(Path(), [name]))
        except UserError as error:
            raise UserError(f"--append {name}: there is no such file under {Path.cwd()}: correct the path") from error
    if not found:
        raise UserError("--append names no file")
    return sorted(found)


@contextmanager
def _alone(features: Path) -> Iterator[Path]:
    """A scratch folder among the days, for the one process that appends; what killed ones left is removed."""
    descriptor, days = os.open(features, os.O_RDONLY), features / DAYS
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another 'nextitem preprocess --append' works on {features}: wait for its end") from error
        tidy(days)
        scratch = days / f".append.partial-{os.getpid()}"
        scratch.mkdir(parents=True)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            with suppress(OSError):  # there are days in it
                days.rmdir()
    finally:
        os.close(descriptor)


class _Days:
    """Writes the day folders of some features.

    Parameters
    ----------
    features : Path
        The features folder.
    others : sequence of Part
        The parts that stay, of all days.
    report : mapping
        Of the features.
    dataset, workflow
        Which made them.
    """

    def __init__(
        self,
        features: Path,
        others: Sequence[Part],
        report: Mapping[str, Any],
        dataset: Dataset,
        workflow: nvtabular.Workflow,
    ) -> None:
        self.features, self.others, self.made_by = features, others, identity(features)
        self.reference = Reference(dataset, workflow, report)
        self.continuous = [
            entry.column for part in (dataset.features.item, dataset.features.event) for entry in part.continuous
        ]
        encode, item = item_encoder(workflow, dataset.events.item), dataset.events.item
        rare, known = encode.rare[item], int(encode.counts[item].sum())
        self.training = {
            "unknown": rare / (rare + known),
            "length": report["windows"]["train"]["events"] / report["windows"]["train"]["sessions"],
            "raw": report["data"]["raw"]["train"],
        }

    def write(self, batch: Batch, stale: set[str]) -> tuple[dict[str, Any], list[str]]:
        """Put a batch in place, and take out the parts that it supersedes."""
        touched = sorted({*batch.days, *stale})
        kept = {day: [part for part in self.others if part.day == day] for day in touched}
        for day in touched:
            if kept[day]:
                read_day(self.features, day)
        written, removed = {}, []
        with step("Writing days", total=len(touched)) as bar:
            for day in touched:
                if kept[day] or day in batch.days:
                    written[day] = self._write(day, kept[day], batch)
                elif (self.features / DAYS / day).exists():
                    self._remove(day)
                    removed.append(day)
                bar.advance()
            bar.say(", ".join([*written, *(f"{day} removed" for day in removed)]))
        return written, removed

    def _write(self, day: str, kept: Sequence[Part], batch: Batch) -> dict[str, Any]:
        folder = self.features / DAYS / day
        with new_folder(folder, DAY, {"day": day}, {"features": self.made_by}) as target:
            for part in kept:
                for path in part.files(folder):
                    _link(path, _place(path, folder, target.path))
            parts = [dict(part.facts) for part in kept]
            if day in batch.days:
                made = batch.folder / day
                for path in sorted(made.rglob("*.parquet")):
                    path.rename(_place(path, made, target.path))
                parts.append(batch.days[day])
            target.report |= self._report(day, sorted(parts, key=lambda part: part["name"]), target.path)
        return target.report

    def _remove(self, day: str) -> None:
        # Away at once, whatever happens to the files then.
        away = self.features / DAYS / f".{day}.partial-{os.getpid()}"
        (self.features / DAYS / day).rename(away)
        shutil.rmtree(away)

    def _report(self, day: str, parts: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
        sessions, events, continued = (
            sum(part[name] for part in parts) for name in ("sessions", "events", "continued_sessions")
        )
        raw = sum(part["raw"]["events"] for part in parts)
        drift = self.reference.compare(session_files(folder), sessions)
        for name in self.continuous:
            if name in drift:
                missing = sum(part["raw"]["missing"].get(name, 0) for part in parts)
                before = self.training["raw"]
                drift[name] |= {
                    "null": missing / raw if raw else None,
                    "null_in_training": before["missing"].get(name, 0) / before["events"],
                }
        return {
            "day": day,
            "sessions": sessions,
            "events": events,
            "continued_sessions": continued,
            "items": {
                "unknown": sum(part["unknown_items"] for part in parts) / raw if raw else None,
                "unknown_in_training": self.training["unknown"],
            },
            "session_length": {
                "mean": events / sessions if sessions else None,
                "mean_in_training": self.training["length"],
            },
            "drift": drift,
            "parts": parts,
        }


def _place(path: Path, old: Path, new: Path) -> Path:
    """Where a file of one folder is in another."""
    place = new / path.relative_to(old)
    place.parent.mkdir(exist_ok=True)
    return place


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _warnings(days: Mapping[str, Mapping[str, Any]], features: Path) -> list[str]:
    """What asks for a new fit, a line a day; also said to the person who waits."""
    lines = []
    for day, report in days.items():
        reasons, unknown = [], report["items"]["unknown"]
        if unknown is not None and unknown > _WARN_UNKNOWN:
            reasons.append(f"{unknown:.0%} of the events show items that training did not know")
        # Of a few sessions even unchanged data gives an index that looks like drift.
        drifted = [
            name
            for name, facts in report["drift"].items()
            if facts["verdict"] == DRIFTED and facts["psi"] > 2 * facts["by_chance"] and name not in _GROWS
        ]
        if drifted:
            reasons.append(f"{', '.join(drifted)} drifted")
        if reasons:
            lines.append(f"{features / DAYS / day}: {'; '.join(reasons)}: refit with 'nextitem preprocess --refit'")
            say(lines[-1])
    return lines
