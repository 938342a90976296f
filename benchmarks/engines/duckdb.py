"""The job in DuckDB's SQL.

Of six ways to collect a session's events, sorting one list of structs a session is the fastest on ten million of them:
a list of structs ordered by the aggregate itself takes a third more CPU seconds, an ordered list for every feature more
than twice as many.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from benchmarks.engines import (
    CODED,
    DAY_MS,
    FEATURES,
    FIRST,
    MAX_LENGTH,
    MIN_LENGTH,
    NULL,
    OUTLIER,
    SHARE,
    UNKNOWN,
    WINDOWS,
)

# The rows of a table are numbered in the order of their insertion: that number breaks ties of time.
_EVENTS = """
CREATE TABLE events AS
SELECT session_id, item_id, category, ln(1 + CASE WHEN price < 0 THEN 0 ELSE price END) AS price,
    epoch_ms("time") AS moment
FROM read_parquet($files)
"""

_SESSIONS = f"""
CREATE TABLE sessions AS
SELECT session_id, min(moment) AS start FROM events GROUP BY session_id HAVING count(*) >= {MIN_LENGTH}
"""

_WINDOWS = f"""
CREATE TABLE windows AS
WITH size AS (
    SELECT count(*) AS n, greatest(1, round_even(count(*) * {SHARE}::DOUBLE, 0))::BIGINT AS held_out FROM sessions
),
ordered AS (SELECT start, row_number() OVER (ORDER BY start) AS place FROM sessions),
border AS (
    SELECT min(start) FILTER (place = n - 2 * held_out + 1) AS valid,
        min(start) FILTER (place = n - held_out + 1) AS test
    FROM ordered, size
)
SELECT session_id, (start >= valid)::TINYINT + (start >= test)::TINYINT AS number FROM sessions, border
"""

_TRAIN = "events SEMI JOIN (SELECT session_id FROM windows WHERE number = 0) USING (session_id)"

_VOCABULARY = """
CREATE TABLE vocabulary_{name} AS
SELECT {name} AS value, count(*) AS count, {before_first} + row_number() OVER (ORDER BY count(*) DESC, {name}) AS code
FROM {train} WHERE {name} IS NOT NULL GROUP BY {name}
"""

_MOMENTS = f"CREATE TABLE moments AS SELECT avg(price) AS mean, stddev_samp(price) AS deviation FROM {_TRAIN}"

_FEATURES = f"""
SELECT session_id, number, moment, events.rowid AS row,
    coalesce(item.code, {UNKNOWN})::BIGINT AS item_id,
    CASE WHEN category IS NULL THEN {NULL} ELSE coalesce(kind.code, {UNKNOWN}) END::BIGINT AS category,
    CASE WHEN price IS NULL THEN 0
        ELSE greatest(least((price - mean) / deviation, {OUTLIER}), -{OUTLIER}) END::FLOAT AS price,
    sin((moment % {DAY_MS}) * (2 * pi() / {DAY_MS}))::FLOAT AS hour_sin,
    cos((moment % {DAY_MS}) * (2 * pi() / {DAY_MS}))::FLOAT AS hour_cos
FROM events JOIN windows USING (session_id)
LEFT JOIN vocabulary_item_id AS item ON item_id = item.value
LEFT JOIN vocabulary_category AS kind ON category = kind.value, moments
"""

_EVENT = f"struct_pack({', '.join(f'{name} := {name}' for name in FEATURES)})"

_LISTS = f"""
CREATE TABLE lists AS
SELECT session_id, any_value(number) AS number,
    [entry.event FOR entry IN
        list_sort(list(struct_pack(moment := moment, row := row, event := {_EVENT})))[-{MAX_LENGTH}:]] AS events
FROM ({_FEATURES}) GROUP BY session_id
"""

_WRITE = f"""
COPY (
    SELECT session_id, {", ".join(f"[event.{name} FOR event IN events] AS {name}" for name in FEATURES)}
    FROM lists WHERE number = {{number}}
) TO '{{path}}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)
"""


def settings() -> str:
    """What it is, in a few words."""
    (threads,) = duckdb.connect().execute("SELECT current_setting('threads')").fetchone() or (None,)
    return f"duckdb {duckdb.__version__}, {threads} threads"


def run(files: list[Path], out: Path) -> None:
    """Do the job of `benchmarks.engines`."""
    database = duckdb.connect()
    database.execute(_EVENTS, {"files": [str(path) for path in files]})
    database.execute(_SESSIONS)
    database.execute(_WINDOWS)
    for name in CODED:
        database.execute(_VOCABULARY.format(name=name, before_first=FIRST - 1, train=_TRAIN))
    database.execute(_MOMENTS)
    database.execute(_LISTS)
    for number, window in enumerate(WINDOWS):
        (out / window).mkdir(parents=True)
        database.execute(_WRITE.format(number=number, path=_quoted(out / window / "part.parquet")))
    (out / "vocabulary").mkdir()
    for name in CODED:
        path = _quoted(out / "vocabulary" / f"{name}.parquet")
        database.execute(
            f"COPY (SELECT value, count FROM vocabulary_{name} ORDER BY code) TO '{path}' (FORMAT parquet)"
        )


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
