"""Days that are appended to the features of the tiny shop, against answers worked out by hand."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.artefacts import identity, read_manifest
from common.days import list_days, read_day, window_files
from common.errors import UserError
from preprocessing.append import append
from preprocessing.preprocess import preprocess

from .conftest import ROWS, table

BY_USER = {
    "events": {"files": "events.parquet", "user": "visit", "item": "sku", "time": "at"},
    "sessions": {"gap": "30 min"},
}


@pytest.fixture
def shop(make, tmp_path):
    """The fitted features, and ``add(name, rows)``, which appends a file."""

    class Shop:
        def __init__(self):
            self.dataset, self.features, self.folder = make(), tmp_path / "features", tmp_path
            preprocess(self.dataset, self.features)

        def fit(self, **settings):
            self.dataset = make(**settings)
            preprocess(self.dataset, self.features, refit=True)

        def write(self, name, rows):
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            pq.write_table(table([event(row) for row in rows]), path)
            return path

        def add(self, *files, **options):
            return append(self.dataset, self.features, [self.write(*file) for file in files], **options)

        def sessions(self, day, column="item_id"):
            read = [pq.read_table(path).to_pydict() for path in window_files(self.features, day)]
            return sorted(pair for part in read for pair in zip(part["session_id"], part[column], strict=True))

        def files(self, day, kind="part"):
            found = (self.features / "days" / day).glob(f"{kind}*.parquet")
            return {path.name: path.read_bytes() for path in found}

    return Shop()


def event(row):
    """("s", "tea", "05T10:00") with brand and price of the item, unless they are given."""
    known = {"tea": ("x", 1.0), "mug": ("y", 3.0), "cup": (None, 5.0), "new": ("z", 2.0)}
    visit, sku, at, *rest = row
    return (visit, sku, f"2024-01-{at}", *(rest or known[sku]))


FIFTH = [("f", "tea", "05T10:00"), ("f", "mug", "05T10:01"), ("g", "new", "05T12:00"), ("g", "cup", "05T12:01")]


def test_a_day_gets_the_codes_and_moments_of_the_training_window(shop):
    report = shop.add(("05.parquet", FIFTH))
    # tea, mug, cup are 3, 4, 5; brand x is 3, y 4, missing 1; what training did not know is 2.
    assert shop.sessions("2024-01-05") == [("f", [3, 4]), ("g", [2, 5])]
    assert shop.sessions("2024-01-05", "brand") == [("f", [3, 4]), ("g", [2, 1])]
    mean, deviation = 7 / 3, np.sqrt(8 / 3)
    prices = dict(shop.sessions("2024-01-05", "price"))
    assert prices["f"] == pytest.approx([(1 - mean) / deviation, (3 - mean) / deviation], abs=1e-6)
    assert prices["g"] == pytest.approx([(2 - mean) / deviation, (5 - mean) / deviation], abs=1e-6)
    facts = report["days"]["2024-01-05"]
    assert (facts["sessions"], facts["events"], facts["continued_sessions"]) == (2, 4, 0)
    assert facts["items"] == {"unknown": 1 / 4, "unknown_in_training": 0}
    assert facts["session_length"] == {"mean": 2, "mean_in_training": 7 / 3}
    assert (report["events_read"], report["events_dropped"]) == (4, {})
    assert len(report["warnings"]) == 1
    assert "25% of the events show items that training did not know" in report["warnings"][0]
    assert report["warnings"][0].endswith("refit with 'nextitem preprocess --refit'")


def test_a_day_is_the_utc_day_of_a_sessions_last_event(shop):
    rows = [("f", "tea", "05T23:59"), ("f", "mug", "06T00:00"), ("g", "tea", "05T23:58"), ("g", "tea", "05T23:59:59")]
    report = shop.add(("log.parquet", [*rows, ("h", "cup", "05T01:00+02:00"), ("h", "cup", "05T01:01+02:00")]))
    assert list(report["days"]) == ["2024-01-04", "2024-01-05", "2024-01-06"]
    assert [shop.sessions(day)[0][0] for day in report["days"]] == ["h", "g", "f"]


def test_the_features_stay_as_they_are(shop):
    before = identity(shop.features)
    shop.add(("05.parquet", FIFTH))
    assert identity(shop.features) == before
    read_manifest(shop.features, "features", "nextitem preprocess")
    (shop.features / "other.pkl").write_text("x")
    with pytest.raises(UserError, match=r"other\.pkl is not in manifest\.json"):
        read_manifest(shop.features, "features", "nextitem preprocess")


def test_twice_is_once(shop):
    shop.add(("05.parquet", FIFTH), ("more/05.parquet", [("i", "tea", "05T23:50"), ("i", "mug", "06T00:01")]))
    days = list_days(shop.features)
    before = {day: (shop.files(day), shop.files(day, "open/")) for day in days}
    reports = [read_day(shop.features, day)["report"] for day in days]
    # Under another name, and in another order, they are the same files.
    (shop.folder / "05.parquet").rename(shop.folder / "zzz.parquet")
    append(shop.dataset, shop.features, [shop.folder / "zzz.parquet", shop.folder / "more" / "05.parquet"])
    assert {day: (shop.files(day), shop.files(day, "open/")) for day in days} == before
    assert [len(before[day][1]) for day in days] == [0, 1]
    for day, report in zip(days, reports, strict=True):
        again = read_day(shop.features, day)["report"]
        assert {source["name"] for source in again["parts"][0]["sources"]} == {"zzz.parquet", "more/05.parquet"}
        again["parts"][0]["sources"] = report["parts"][0]["sources"]
        assert again == report
    assert not [path for path in (shop.features / "days").iterdir() if path.name.startswith(".")]


def test_a_session_that_goes_on_past_midnight_is_whole_on_the_later_day(shop):
    """f goes on, and with two events more; g goes on, although one event was no session yet; h is over; i was over."""
    first = shop.add(
        ("05.parquet", [("f", "tea", "05T23:40"), ("f", "mug", "05T23:50"), ("g", "cup", "05T23:58"),
                        ("h", "tea", "05T23:45"), ("h", "tea", "05T23:57"), ("i", "tea", "05T10:00"),
                        ("i", "mug", "05T23:20")])
    )  # fmt: skip
    assert first["events_dropped"] == {"in sessions shorter than 2 events": 1}
    second = shop.add(
        ("06.parquet", [("f", "cup", "06T00:02"), ("f", "tea", "06T00:03"), ("g", "mug", "06T00:05"),
                        ("i", "cup", "06T00:01"), ("i", "cup", "06T00:02")])
    )  # fmt: skip
    assert shop.sessions("2024-01-06") == [("f", [3, 4, 5, 3]), ("g", [5, 4]), ("i", [5, 5])]
    # What was known at the end of the fifth stays there.
    assert shop.sessions("2024-01-05") == [("f", [3, 4]), ("h", [3, 3]), ("i", [3, 4])]
    facts = second["days"]["2024-01-06"]
    assert (facts["continued_sessions"], facts["sessions"], facts["events"]) == (2, 3, 8)
    assert (second["events_read"], second["events_carried"], second["events"]) == (5, 3, 8)


def test_a_session_goes_on_over_three_days(shop):
    shop.add(("05.parquet", [("f", "tea", "05T23:59")]))
    assert list_days(shop.features) == ["2024-01-05"]  # no session yet, but one that is open
    shop.add(("06.parquet", [("f", "mug", "06T00:01"), ("f", "mug", "06T23:59")]))
    shop.add(("07.parquet", [("f", "cup", "07T00:01")]))
    assert shop.sessions("2024-01-07") == [("f", [3, 4, 4, 5])]


def test_a_pause_longer_than_the_gap_ends_a_users_session(shop):
    """u goes on; v comes back after the gap, and is not written again; w had a session before the open one."""
    shop.fit(**BY_USER)
    shop.add(
        ("05.parquet", [("u", "tea", "05T23:50"), ("u", "mug", "05T23:55"), ("v", "tea", "05T23:51"),
                        ("v", "cup", "05T23:59"), ("w", "cup", "05T10:00"), ("w", "cup", "05T10:01"),
                        ("w", "tea", "05T23:59")])
    )  # fmt: skip
    report = shop.add(
        ("06.parquet", [("u", "cup", "06T00:10"), ("v", "mug", "06T12:00"), ("v", "mug", "06T12:01"),
                        ("w", "mug", "06T00:20")])
    )  # fmt: skip
    assert shop.sessions("2024-01-06") == [("u", [3, 4, 5]), ("v", [4, 4]), ("w", [3, 4])]
    assert report["continued_sessions"] == 2
    assert report["events_dropped"] == {"of open sessions that did not go on": 2}
    balance = report["events_read"] + report["events_carried"] - sum(report["events_dropped"].values())
    assert report["events"] == balance == 7


def test_files_of_one_day_stand_beside_each_other(shop):
    """Two logs of the fifth, and one of the sixth, into which sessions of both go on."""
    web = ("web.parquet", [*FIFTH, ("k", "tea", "05T23:50"), ("k", "tea", "05T23:51")])
    shop.add(web)
    first = {path: path.stat().st_ino for path in window_files(shop.features, "2024-01-05")}
    day = shop.add(("app.parquet", [("l", "mug", "05T23:56"), ("l", "cup", "05T23:57")]))["days"]["2024-01-05"]
    assert (day["sessions"], len(day["parts"])) == (4, 2)
    assert shop.sessions("2024-01-05") == [("f", [3, 4]), ("g", [2, 5]), ("k", [3, 3]), ("l", [4, 5])]
    assert all(path.stat().st_ino == inode for path, inode in first.items())  # not written anew
    shop.add(("06.parquet", [("k", "mug", "06T00:01"), ("l", "mug", "06T00:02")]))
    assert shop.sessions("2024-01-06") == [("k", [3, 3, 4]), ("l", [4, 5, 4])]
    # The fifth again changes neither day; what comes later was not there before it.
    before = {day: shop.files(day) for day in list_days(shop.features)}
    shop.add(web)
    assert {day: shop.files(day) for day in list_days(shop.features)} == before


def test_hourly_files_give_whole_sessions_too(shop):
    shop.add(("10.parquet", [("f", "tea", "05T10:58"), ("f", "mug", "05T10:59")]))
    # At equal times, what was known before comes first.
    shop.add(("11.parquet", [("f", "cup", "05T10:59"), ("f", "tea", "05T11:01")]))
    assert shop.sessions("2024-01-05") == [("f", [3, 4]), ("f", [3, 4, 5, 3])]


def test_files_of_one_call_belong_together(shop):
    files = [("a.parquet", FIFTH), ("b.parquet", [("i", "tea", "06T10:00"), ("i", "mug", "06T10:01")])]
    shop.add(*files)
    before = {day: identity(shop.features / "days" / day) for day in list_days(shop.features)}
    with pytest.raises(UserError, match=r"b\.parquet was appended to 2024-01-05 together with a\.parquet.*all files"):
        shop.add(files[1])
    assert {day: identity(shop.features / "days" / day) for day in list_days(shop.features)} == before
    # With more files it is a larger call, which takes the place of the smaller one.
    report = shop.add(*files, ("c.parquet", [("j", "cup", "06T11:00"), ("j", "cup", "06T11:01")]))
    assert shop.sessions("2024-01-06") == [("i", [3, 4]), ("j", [5, 5])]
    assert len(report["days"]["2024-01-06"]["parts"]) == 1
    with pytest.raises(UserError, match=r"copy\.parquet has the same content as .*c\.parquet: append it once"):
        shop.add(*files, ("c.parquet", FIFTH[:2]), ("copy.parquet", FIFTH[:2]))


def test_other_content_under_the_same_name_is_refused_unless_it_is_meant(shop):
    shop.add(("05.parquet", FIFTH))
    shop.add(("beside.parquet", [("i", "tea", "05T10:00"), ("i", "mug", "05T10:01")]))
    corrected = ("05.parquet", [("f", "cup", "06T10:00"), ("f", "cup", "06T10:01")])
    with pytest.raises(UserError, match=r"05\.parquet was appended to 2024-01-05 before with other content.*--replace"):
        shop.add(corrected)
    assert len(shop.sessions("2024-01-05")) == 3
    report = shop.add(corrected, replace=True)
    assert (list(report["days"]), report["days_removed"]) == (["2024-01-05", "2024-01-06"], [])
    assert shop.sessions("2024-01-05") == [("i", [3, 4])]
    report = shop.add(("05.parquet", [("f", "cup", "05T10:00"), ("f", "cup", "05T10:01")]), replace=True)
    assert (report["days_removed"], list_days(shop.features)) == (["2024-01-06"], ["2024-01-05"])
    # A name is a path: the fifth of another shop is another file.
    shop.add(("other/05.parquet", [("o", "tea", "05T10:00"), ("o", "mug", "05T10:01")]))
    assert [key for key, _ in shop.sessions("2024-01-05")] == ["f", "i", "o"]


@pytest.mark.parametrize("options", [{"partition_events": 5}, {"partition_events": 5, "cluster": "local[2]"}])
def test_partitions_and_workers_change_nothing(shop, options):
    rng = np.random.default_rng(0)
    shop.fit(**BY_USER)
    items, moments = ["tea", "mug", "cup", "new"], [f"{day:02d}T{hour:02d}" for day in (5, 6, 7) for hour in range(24)]
    rows = [(f"u{rng.integers(20)}", items[rng.integers(4)], f"{hour}:{rng.integers(10, 59)}") for hour in moments * 4]
    files = [(f"{day}.parquet", [row for row in rows if row[2].startswith(day)]) for day in ("05", "06", "07")]
    whole = {}
    for chosen in ({}, options):
        shop.add(files[0])
        report = shop.add(*files[1:], **chosen)
        found = {day: shop.sessions(day) for day in list_days(shop.features)}
        facts = {name: report[name] for name in ("events_read", "events_carried", "events_dropped", "events")}
        whole = whole or {"found": found, "facts": facts}
    assert whole == {"found": found, "facts": facts}
    assert facts["events_read"] + facts["events_carried"] == facts["events"] + sum(facts["events_dropped"].values())
    assert len(found) == 3


def test_bad_rows_are_kept_with_the_last_day_and_counted(shop):
    events = shop.dataset.events.model_copy(update={"max_bad_share": 0.2})
    shop.dataset = shop.dataset.model_copy(update={"events": events})
    rows = [*FIFTH, ("g", "cup", "06T00:01"), ("h", None, "05T12:00", "x", 1.0)]
    report = shop.add(("05.parquet", rows))
    assert report["events_dropped"] == {"unusable: column 'sku' has no item id": 1}
    (quarantined,) = (shop.features / "days" / "2024-01-06").glob("quarantine/*.parquet")
    assert pq.read_table(quarantined).to_pylist()[0]["visit"] == "h"
    assert shop.sessions("2024-01-06") == [("g", [2, 5, 5])]
    with pytest.raises(UserError, match=r"1 of 2 rows \(50\.00%\) cannot be used"):
        shop.add(("06.parquet", [("h", None, "06T12:00", "x", 1.0), ("h", "tea", "06T12:00")]))
    assert list_days(shop.features) == ["2024-01-05", "2024-01-06"]


def test_csv_is_brought_into_the_types_of_the_features(shop):
    path = shop.folder / "05.csv"
    path.write_text("visit,sku,at,brand,price\n7,tea,2024-01-05T10:00,x,1\n7,mug,2024-01-05T10:01,,3\n")
    append(shop.dataset, shop.features, [path])
    assert shop.sessions("2024-01-05") == [("7", [3, 4])]
    assert shop.sessions("2024-01-05", "brand") == [("7", [3, 1])]


def test_what_does_not_fit_the_features_is_refused_before_any_work(shop, make, monkeypatch):
    path = shop.folder / "05.parquet"
    rows = [event(row) for row in FIFTH]
    pq.write_table(table([(*row[:4], "dear") for row in rows]), path)
    with pytest.raises(UserError, match=r"05\.parquet: column 'price' is string"):
        append(shop.dataset, shop.features, [path])
    pq.write_table(table([(index, *row[1:]) for index, row in enumerate(rows)]), path)
    with pytest.raises(
        UserError, match=r"05\.parquet: column 'visit' is int64, but the features were made from string"
    ):
        append(shop.dataset, shop.features, [path])
    pq.write_table(table(rows).drop_columns(["brand"]), path)
    with pytest.raises(UserError, match=r"05\.parquet has no column 'brand'"):
        append(shop.dataset, shop.features, [path])
    with pytest.raises(UserError, match="--append nowhere: there is no such file"):
        append(shop.dataset, shop.features, ["nowhere"])
    pq.write_table(table(rows), path)
    with pytest.raises(UserError, match=r"was made with sessions\.max_length = 20, but the description says 5"):
        append(make(sessions={"max_length": 5}), shop.features, [path])
    with pytest.raises(UserError, match="run 'nextitem preprocess' first"):
        append(shop.dataset, shop.folder / "nothing", [path])
    assert not (shop.features / "days").exists()
    # The split, the files and the share of bad rows may be written otherwise; a pattern is a list of files.
    monkeypatch.chdir(shop.folder)
    append(make(split={"valid": 0.3}), shop.features, ["0[5-9].parquet"])
    assert list_days(shop.features) == ["2024-01-05"]


def test_features_with_days_are_not_fitted_anew_unless_it_is_meant(shop):
    shop.add(("05.parquet", FIFTH), ("06.parquet", [("i", "tea", "06T10:00"), ("i", "mug", "06T10:01")]))
    before = identity(shop.features)
    with pytest.raises(UserError, match=r"features/days holds 2 days that a new fit would invalidate: give --refit"):
        preprocess(shop.dataset, shop.features)
    assert identity(shop.features) == before
    assert list_days(shop.features) == ["2024-01-05", "2024-01-06"]
    preprocess(shop.dataset, shop.features, refit=True)
    assert list_days(shop.features) == []


def test_one_process_appends_at_a_time(shop):
    descriptor = os.open(shop.features, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another 'nextitem preprocess --append' works on"):
        shop.add(("05.parquet", FIFTH))
    os.close(descriptor)
    shop.add(("05.parquet", FIFTH))


def test_leftovers_of_killed_appends_do_no_harm_and_go(shop):
    shop.add(("05.parquet", FIFTH))
    days = shop.features / "days"
    for name in (".append.partial-1", ".2024-01-06.partial-2", ".2024-01-05.previous"):
        (days / name).mkdir()
        (days / name / "half.pkl").write_text("x")
    read_manifest(shop.features, "features", "nextitem preprocess")
    assert list_days(shop.features) == ["2024-01-05"]
    shop.add(("07.parquet", [("i", "tea", "07T10:00"), ("i", "mug", "07T10:01")]))
    assert sorted(path.name for path in days.iterdir()) == ["2024-01-05", "2024-01-07"]


@pytest.fixture
def killable(shop):
    """Days 5 (of two calls) and 8; a corrected file that changes 5, adds 7 and takes away 8."""
    rows = [("i", "tea", "08T10:00"), ("i", "mug", "08T10:01"), *FIFTH]
    shop.add(("05.parquet", rows), ("06.parquet", [("k", "tea", "05T13:00"), ("k", "tea", "05T13:01")]))
    shop.add(("beside.parquet", [("l", "mug", "05T10:00"), ("l", "cup", "05T10:01")]))
    shop.write("05.parquet", [("f", "cup", "05T10:00"), ("f", "cup", "05T10:01"),
                              ("m", "cup", "07T10:00"), ("m", "tea", "07T10:01")])  # fmt: skip
    (shop.folder / "dataset.json").write_text(json.dumps(shop.dataset.model_dump(mode="json")))
    return shop


@pytest.mark.parametrize("how", ["at every step", "at random moments"])
def test_killed_anywhere_days_are_whole_or_absent_and_the_same_call_completes(killable, how):
    script = Path(__file__).with_name("killed_append.py")
    command = [sys.executable, "-W", "ignore", script, killable.folder, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] >= (15 if how == "at every step" else 6)
    if how == "at every step":  # while no day was changed yet, some were, and all were
        assert {"before", "between", "after"} <= set(result["states"])


def test_an_altered_day_is_refused(shop):
    shop.add(("05.parquet", FIFTH))
    day = shop.features / "days" / "2024-01-05"
    (day / "evil.pkl").write_text("x")
    with pytest.raises(UserError, match=r"evil\.pkl is not in manifest\.json"):
        window_files(shop.features, "2024-01-05")
    (day / "evil.pkl").unlink()
    (day / "README.md").write_text("x")
    with pytest.raises(UserError, match=r"README\.md is no parquet file"):
        window_files(shop.features, "2024-01-05")
    (day / "README.md").unlink()
    (part,) = window_files(shop.features, "2024-01-05")
    pq.write_table(pa.table({"item_id": pa.array([[3, 4]])}), part)
    with pytest.raises(UserError, match="was changed after it was written"):
        window_files(shop.features, "2024-01-05")
    with pytest.raises(UserError, match="was changed after it was written"):
        shop.add(("b.parquet", FIFTH[:2]))


def test_a_day_of_other_features_is_refused(shop, make):
    shop.add(("05.parquet", FIFTH))
    days, kept = shop.features / "days", shop.folder / "kept"
    days.rename(kept)
    preprocess(make(table([*ROWS[:-1], ("e", "tea", *ROWS[-1][2:])])), shop.features)
    kept.rename(days)
    with pytest.raises(UserError, match="2024-01-05 was made by other features"):
        window_files(shop.features, "2024-01-05")


def test_windows_name_a_part_of_the_split_a_day_or_days(shop):
    names = {"05": "f", "06": "g", "09": "h"}
    for day, visit in names.items():
        shop.add((f"{day}.parquet", [(visit, "tea", f"{day}T10:00"), (visit, "mug", f"{day}T10:01")]))
    for window, expected in {
        "train": ["a", "b", "c"],
        "2024-01-06": ["g"],
        "2024-01-06..2024-01-31": ["g", "h"],
        "2024-01-05..2024-01-05": ["f"],
    }.items():
        assert [key for key, _ in shop.sessions(window)] == expected
    with pytest.raises(
        UserError, match=r"no day of --window 2024-01-07\.\.2024-01-08: there are 3 days, 2024-01-05 to"
    ):
        window_files(shop.features, "2024-01-07..2024-01-08")
    for wrong in ("tuesday", "2024-1-5", "2024-02-30", "../train", "2024-01-05.."):
        with pytest.raises(UserError, match="write train, valid, test, a day such as"):
            window_files(shop.features, wrong)
