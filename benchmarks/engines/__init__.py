"""The engines of `benchmarks.preprocessing`, a file each, and what measures them.

The job, the same for all: events of a log (see `data`) become sessions that a model can learn from.

1. A session is the events of one ``session_id`` in time order; ties keep the order of the files. Sessions of one event
   are dropped.
2. The last tenth of the sessions, by the time of their first event, is the test window, the tenth before it the
   validation window, the rest is for training.
3. ``item_id`` and ``category`` become int64 codes: known values from 3 by falling count in training, 2 unknown, 1 null.
   Values that occur equally often stand in ascending order.
4. ``price`` becomes log(1 + x) after a clip at 0, with the mean and the sample deviation of training taken out, clipped
   to 10 deviations, 0 where there is none, float32.
5. The hour of the day becomes its sine and cosine, float32.
6. The last 20 events of each session are written, a row a session, a list a feature, as parquet with zstd level 1 into
   the folders train, valid and test.

Beside them go the values behind the codes, with their counts in training: ``vocabulary/<column>.parquet``.

Each engine's file has ``settings() -> str`` and ``run(files, out)``, and is named after the engine. The sub-package
shares its file names with the libraries; imports here are absolute, so they never meet.
"""

ENGINES = ("read", "nextitem", "polars", "duckdb", "pandas", "nvtabular")
WINDOWS = ("train", "valid", "test")
CODED = ("item_id", "category")
FEATURES = ("item_id", "category", "price", "hour_sin", "hour_cos")
COLUMNS = ("session_id", "item_id", "category", "price", "time")

MIN_LENGTH, MAX_LENGTH = 2, 20
SHARE = 0.1  # of the sessions, for validation and again for testing
NULL, UNKNOWN, FIRST = 1, 2, 3
OUTLIER = 10.0
DAY_MS = 86_400_000
