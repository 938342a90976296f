"""The four public downloads as events: one parquet file each, with the window that every session belongs to.

What `nextitem preprocess` can do (repeats in a row, short sessions, the latest 20 events) is left to it. Here is what
it cannot: files without a header or in JSON, sessions that are not given, articles that are read again, and windows.
DuckDB works on disk when memory is short.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common.artefacts import new_folder, read_manifest
from common.errors import UserError
from common.progress import step

EVENTS = "events.parquet"
# In front of a session's key: the number of its window, so that it can be told from the features.
WINDOW_DIGITS = 4
_IDLE = "30 minutes"


@dataclass(frozen=True)
class Download:
    """One of the data sets.

    Attributes
    ----------
    files : str
        Regular expression of the names of its files.
    example : str
        Such a name, for messages.
    reader : str
        SQL that reads ``{files}``, a list of paths.
    key, moment : str
        SQL of the session (with `idle`, of the user) and of the time.
    time, item : str
        Names of the columns of time and item in what is written.
    columns : str
        SQL of the other columns.
    where : str
        SQL of the rows that are events.
    unit : {"day", "hour"}
        How long a window is.
    idle : bool
        Half an hour without an event ends a session.
    first_only : bool
        Of an item that comes several times in a session, the first event counts.
    start : str, optional
        SQL of the session's start; by default its first event.
    """

    files: str
    example: str
    reader: str
    key: str
    moment: str
    time: str
    item: str
    columns: str
    where: str
    unit: str
    idle: bool = False
    first_only: bool = False
    start: str | None = None


def _csv(columns: Sequence[str], header: bool) -> str:
    names = ", ".join(f"'{name}': 'VARCHAR'" for name in columns)
    # Told all there is to know: an empty file, of which G1 has one, says nothing of its dialect.
    return (
        f"read_csv({{files}}, auto_detect=false, delim=',', quote='\"', escape='\"', header={header}, "
        f"columns={{{{{names}}}}})"
    )


_REES46 = "event_time event_type product_id category_id category_code brand price user_id user_session"
_G1 = (
    "user_id session_id session_start session_size click_article_id click_timestamp click_environment "
    "click_deviceGroup click_os click_country click_region click_referrer_type"
)
_G1_CONTEXT = "click_environment click_deviceGroup click_os click_country click_region"
_ADRESSA_CONTEXT = "city region country deviceType os referrerHostClass"

DOWNLOADS = {
    "rees46": Download(
        files=r"2019-Oct\.csv(\.gz)?",
        example="2019-Oct.csv",
        reader=_csv(_REES46.split(), header=True),
        key="user_session",
        moment="strptime(event_time, '%Y-%m-%d %H:%M:%S UTC')",
        time="event_time",
        item="product_id",
        columns="event_type, category_id, category_code, brand, price::DOUBLE AS price",
        where="true",
        unit="day",
    ),
    "yoochoose": Download(
        files=r"yoochoose-clicks\.dat(\.gz)?",
        example="yoochoose-clicks.dat",
        reader=_csv(["session_id", "clicked_at", "item", "category"], header=False),
        key="session_id",
        moment="strptime(clicked_at, '%Y-%m-%dT%H:%M:%S.%fZ')",
        time="timestamp",
        item="item AS item_id",
        columns="category",
        where="true",
        unit="day",
    ),
    "g1": Download(
        files=r"clicks_hour_\d+\.csv(\.gz)?",
        example="clicks_hour_000.csv",
        reader=_csv(_G1.split(), header=True),
        key="session_id",
        moment="make_timestamp(click_timestamp::BIGINT * 1000)",
        time="click_time",
        item="click_article_id",
        columns=", ".join(f"{name}::BIGINT AS {name}" for name in _G1_CONTEXT.split()),
        where="true",
        unit="hour",
        first_only=True,
        start="make_timestamp(session_start::BIGINT * 1000)",
    ),
    "adressa": Download(
        files=r"2017(010[1-9]|011[0-6])(\.gz)?",
        example="20170101",
        reader=(
            "read_json({files}, format='newline_delimited', columns={{'id': 'VARCHAR', 'userId': 'VARCHAR', "
            "'time': 'BIGINT', 'category1': 'VARCHAR', 'author': 'JSON', "
            + ", ".join(f"'{name}': 'VARCHAR'" for name in _ADRESSA_CONTEXT.split())
            + "}})"
        ),
        key="userId",
        moment="make_timestamp(time * 1000000)",
        time="viewed_at",
        item="id",
        columns=(
            "split_part(category1, '|', 1) AS category0, category1, "
            "CASE json_type(author) WHEN 'ARRAY' THEN author ->> '$[0]' ELSE author ->> '$' END AS author, "
            + ", ".join(_ADRESSA_CONTEXT.split())
        ),
        where="id IS NOT NULL",
        unit="hour",
        idle=True,
        first_only=True,
    ),
}


def find(root: Path, name: str) -> list[Path]:
    """The files of a data set below a folder, by name.

    Raises
    ------
    UserError
        When there is none, or a file is there twice.
    """
    download = DOWNLOADS[name]
    found = [path for path in sorted(root.rglob("*")) if path.is_file() and re.fullmatch(download.files, path.name)]
    if not found:
        raise UserError(
            f"{root} has no file such as {download.example}: give the folder of the download with --data-root "
            "(examples/recsys2021/README.md says where it is)"
        )
    stems = [path.name.removesuffix(".gz") for path in found]
    for path, stem in zip(found, stems, strict=True):
        if stems.count(stem) > 1:
            raise UserError(f"{path} is there twice below {root}: keep one of them, packed or not")
    return sorted(found, key=lambda path: path.name)


def prepare(root: Path | str, name: str, output: Path | str) -> dict[str, Any]:
    """Write the events of a data set; what was written of the same files before is kept.

    Parameters
    ----------
    root : Path or str
        The folder of the download; its files may lie deeper.
    name : str
        A key of `DOWNLOADS`.
    output : Path or str
        The folder to write: ``events.parquet`` with ``session`` (the window's four digits, a slash, and the key),
        ``position`` (the row in the download), time, item and features by the download's names.

    Returns
    -------
    dict
        ``rows`` read, ``events``, ``sessions`` and ``windows``: the number of the last.

    Raises
    ------
    UserError
        When the files are missing or not what the data set's are, or DuckDB is not installed.
    """
    files, output = find(Path(root), name), Path(output)
    settings = {"dataset": name, "files": {path.name: path.stat().st_size for path in files}}
    if (output / "manifest.json").is_file():
        manifest = read_manifest(output, "events", "python -m examples.recsys2021")
        if manifest["settings"] == settings:
            return dict(manifest["report"])
    with new_folder(output, "events", settings) as folder, step(f"Reading {_many(files)} of {name}") as bar:
        folder.report |= _write(DOWNLOADS[name], files, folder.path)
        bar.say(f"{folder.report['events']:,} events in {folder.report['windows']} windows")
    return folder.report


def _write(download: Download, files: Sequence[Path], folder: Path) -> dict[str, Any]:
    try:
        import duckdb
    except ImportError as error:
        raise UserError("examples.recsys2021 reads the downloads with DuckDB: install nextitem[dev]") from error
    try:
        with (
            TemporaryDirectory(prefix="scratch-", dir=folder) as scratch,
            duckdb.connect(str(Path(scratch) / "events.duckdb")) as connection,
        ):
            for statement in _statements(download, files, folder / EVENTS):
                connection.execute(statement)
            counts = connection.execute(
                "SELECT (SELECT count(*) FROM rows), count(*), count(DISTINCT key), coalesce(max(number), 0) "
                "FROM events"
            ).fetchone()
    except duckdb.Error as error:
        raise UserError(f"{files[0]} is not what the download has: {error}") from error
    report = dict(zip(("rows", "events", "sessions", "windows"), counts or (), strict=True))
    if not report["events"]:
        raise UserError(f"{files[0]}: there is no event in it")
    return report


def _statements(download: Download, files: Sequence[Path], target: Path) -> list[str]:
    """SQL that reads, cleans, numbers the windows and writes."""
    usable = [path for path in files if path.stat().st_size]
    if not usable:
        raise UserError(f"{files[0]} is empty: download it again")
    paths = "[" + ", ".join(_quoted(path) for path in usable) + "]"
    time, item = download.time, download.item.split()[-1]
    sessions, kept = "SELECT * FROM rows", ""
    if download.idle:
        # A view that comes so long after the one before, or has none before, begins a session.
        later = f"NOT coalesce(moment <= lag(moment) OVER before + INTERVAL '{_IDLE}', false)"
        key = "key || '/' || sum(new) OVER (PARTITION BY key ORDER BY moment, position)"
        sessions = (
            f"SELECT * REPLACE ({key} AS key) FROM (SELECT *, ({later})::INTEGER AS new FROM rows WINDOW before AS "
            "(PARTITION BY key ORDER BY moment, position))"
        )
    if download.first_only:
        kept = f"QUALIFY row_number() OVER (PARTITION BY key, {item} ORDER BY moment, position) = 1"
    return [
        # Rows come in the order of the files; their number settles what has one time.
        f"CREATE TABLE read AS SELECT * FROM {download.reader.format(files=paths)}",
        f"CREATE TABLE rows AS SELECT {download.key} AS key, {download.moment} AS moment, rowid AS position, "
        f"{download.item}, {download.columns}, {download.start or 'NULL::TIMESTAMP'} AS began FROM read "
        f"WHERE {download.where} AND {download.key} IS NOT NULL",
        "DROP TABLE read",
        f"CREATE TABLE sessions AS {sessions}",
        "CREATE TABLE starts AS SELECT key, coalesce(min(began), min(moment)) AS start FROM sessions GROUP BY key",
        f"CREATE TABLE windows AS SELECT key, 1 + date_diff('{download.unit}', (SELECT min(start) FROM starts), start) "
        "AS number FROM starts",
        f"CREATE TABLE events AS SELECT sessions.*, number FROM sessions JOIN windows USING (key) {kept}",
        f"COPY (SELECT format('{{:0{WINDOW_DIGITS}d}}/{{}}', number, key) AS session, position, moment AS {time}, "
        f"events.* EXCLUDE (key, moment, position, began, number{', new' if download.idle else ''}) FROM events) "
        f"TO {_quoted(target)} (FORMAT parquet, COMPRESSION zstd)",
    ]


def _many(files: Sequence[Path]) -> str:
    return f"{len(files)} files" if len(files) > 1 else "1 file"


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
