"""Sessions streamed from parquet: the same as in memory, each once, in an order that only the seed decides."""

import itertools
import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from common.errors import UserError
from modeling.data import joined, read_file
from modeling.loading import SessionStream, parts
from modeling.loading.ahead import made_ahead
from modeling.loading.parts import parquet_files, parts_of, read_pieces
from modeling.schema import Feature

FEATURES = [
    Feature("item_id", "categorical", 1000, 3, True),
    Feature("price", "continuous"),
    Feature("text", "embedding", width=2),
    Feature("shop (a.b)", "categorical", 1000, sequence=False),
    Feature("hobbies", "categorical", 9, sequence=False),
]
SESSIONS = 211


def columns_of(first: int, count: int) -> pa.Table:
    """Sessions that show their number in every column; number n has 1 + n * 7 % 12 events."""
    rows = range(first, first + count)
    n = {row: 1 + row * 7 % 12 for row in rows}
    return pa.table(
        {
            "item_id": pa.array([[row + 1] * n[row] for row in rows], pa.list_(pa.int64())),
            "price": pa.array([[row + i / 16 for i in range(n[row])] for row in rows], pa.list_(pa.float32())),
            "text": pa.array(
                [[[row, i] for i in range(n[row])] for row in rows], pa.list_(pa.list_(pa.float32()))
            ),
            "shop (a.b)": pa.array([row + 1 for row in rows], pa.int64()),
            "hobbies": pa.array([[8] * (row % 3) for row in rows], pa.list_(pa.int64())),
            "unused": pa.array([str(row) for row in rows]),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files of 100, 0, 37 and 74 sessions, in row groups of up to 30, 30, 37 and 10."""
    path = tmp_path_factory.mktemp("stream")
    first = 0
    for name, (count, size) in zip("abcd", [(100, 30), (0, 30), (37, 37), (74, 10)], strict=True):
        pq.write_table(columns_of(first, count), path / f"{name}.parquet", row_group_size=size)
        first += count
    return path


def stream(folder: Path, **arguments: Any) -> SessionStream:
    if "max_events" not in arguments:
        arguments = {"batch_size": 8, **arguments}
    return SessionStream.of(folder, FEATURES, **{"buffer_size": 48, **arguments})


def chosen(made: Any) -> list[list[int]]:
    return [numbers.tolist() for numbers, _ in made]


KINDS: list[dict[str, Any]] = [
    {},
    {"shuffle": False},
    {"shuffle": False, "bucket": True, "limit": 5},
    {"bucket": False, "workers": 0},
    {"max_events": 40, "workers": 3},
    {"max_events": 30, "shuffle": False},
    {"buffer_size": 1, "batch_size": 1},
    {"buffer_size": 10_000, "limit": 3},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_session_comes_once_and_as_it_is_in_memory(kind: dict[str, Any], folder: Path) -> None:
    whole = joined([read_file(file, FEATURES) for file in parquet_files(folder)])
    limit = kind.get("limit", 99)
    seen: list[int] = []
    for numbers, columns in stream(folder, **kind):
        seen += numbers.tolist()
        expected = whole.padded(numbers, limit)
        hobbies, bags = columns.pop("hobbies"), expected.pop("hobbies")
        assert columns.keys() == expected.keys()
        for name, column in columns.items():
            assert torch.equal(column, expected[name]), name
            assert column.dtype == expected[name].dtype
        # As wide as the batch needs, instead of the whole data.
        assert torch.equal(torch.nn.functional.pad(hobbies, (0, 2 - hobbies.shape[1])), bags)
        assert hobbies.shape[1] == max(1, int((numbers % 3).max()))
    assert sorted(seen) == list(range(SESSIONS))
    assert (seen == sorted(seen)) == (not kind.get("shuffle", True) and not kind.get("bucket", False))


@pytest.mark.parametrize("kind", [{}, {"max_events": 40}], ids=str)
def test_the_order_depends_on_seed_and_pass_but_not_on_workers(kind: dict[str, Any], folder: Path) -> None:
    def passes(**arguments: Any) -> list[list[list[int]]]:
        source = stream(folder, **kind, **arguments)
        return [chosen(source), chosen(source)]

    first, second = passes(workers=0)
    assert first != second
    for workers in (1, 2, 5):
        assert passes(workers=workers, ahead=workers) == [first, second]
    assert passes(workers=0, seed=1)[0] != first


def test_files_are_mixed(folder: Path) -> None:
    """With room for 48 sessions, the first 24 are from several row groups of several files, and not in their order."""
    source = stream(folder, bucket=False)
    order = [number for batch in chosen(source) for number in batch]
    ends = torch.tensor([30, 60, 90, 100, 137, 147, 157, 167, 177, 187, 197, 207, 211])
    groups = torch.searchsorted(ends, torch.tensor(order), right=True)
    for start in range(0, 192, 24):
        assert len(set(groups[start : start + 24].tolist())) >= 3
    # Rows of a group do not come in their order: half of the 136 neighbours descend in a random one.
    first = [number for number in order if number < 137]
    descents = sum(a > b for a, b in itertools.pairwise(first))
    assert 40 < descents < 95


def test_a_pass_goes_on_where_it_was_left(folder: Path) -> None:
    for kind in ({}, {"max_events": 40}, {"shuffle": False}, {"drop_last": True}, {"rank": 1, "world_size": 2}):
        whole = stream(folder, workers=0, **kind)
        expected, following = [list(whole), chosen(whole)]
        for left in {5, len(expected) // 2, len(expected)}:
            interrupted = stream(folder, workers=left % 3, **kind)
            made = iter(interrupted)
            for _ in range(left):
                next(made)
            state = json.loads(json.dumps(interrupted.state_dict()))
            made.close()
            resumed = stream(folder, workers=1, **kind)
            resumed.load_state_dict(state)
            rest = list(resumed)
            if left == len(expected):  # that was the end: what comes is the next pass
                assert [numbers.tolist() for numbers, _ in rest] == following
                continue
            for (numbers, columns), (own, own_columns) in zip(expected[left:], rest, strict=True):
                assert torch.equal(numbers, own)
                assert all(torch.equal(column, own_columns[name]) for name, column in columns.items())
            assert chosen(resumed) == following


def test_resuming_reads_only_what_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stream(folder, workers=0)
    made = iter(source)
    for _ in range(20):
        next(made)
    state = source.state_dict()
    made.close()
    rows = []
    read = parts.sessions_of
    monkeypatch.setattr(parts, "sessions_of", lambda table, *rest: rows.append(table.num_rows) or read(table, *rest))
    resumed = stream(folder, workers=0)
    resumed.load_state_dict(state)
    assert sum(map(len, chosen(resumed))) == SESSIONS - 160
    # 160 have been handed out; pieces of up to 12 sessions of which some had been kept are read again.
    assert 51 <= sum(rows) < SESSIONS
    # What was handed out before is not kept: the buffer, and what its last piece has too many.
    assert resumed.most_held < 48 + 12


def test_a_process_reads_its_own_share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    read = parts.sessions_of
    monkeypatch.setattr(parts, "sessions_of", lambda table, *rest: rows.append(table.num_rows) or read(table, *rest))
    for rank in (0, 1, 2):
        chosen(stream(folder, rank=rank, world_size=3, workers=2))
    # Two pieces of up to 12 sessions lie across borders.
    assert SESSIONS <= sum(rows) <= SESSIONS + 24


def test_a_pass_that_was_broken_off_is_followed_by_another(folder: Path) -> None:
    source = stream(folder)
    for _ in source:
        break
    assert sorted(n for batch in chosen(source) for n in batch) == list(range(SESSIONS))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("batches", "sessions"))]


@pytest.mark.parametrize("buffer_size", [16, 48, 100])
def test_what_is_in_memory_is_bounded_whatever_the_row_groups(buffer_size: int, tmp_path: Path, folder: Path) -> None:
    pq.write_table(columns_of(0, 500), tmp_path / "one.parquet")
    for path, count in ((tmp_path, 500), (folder, SESSIONS)):
        source = stream(path, buffer_size=buffer_size)
        assert sum(map(len, chosen(source))) == count
        assert buffer_size <= source.most_held < buffer_size + buffer_size // 4


def test_workers_read_no_further_ahead_than_they_are_many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stream(folder)
    pieces = [piece for part in source._pieces for piece in part]
    assert len(pieces) > 10
    begun = []
    read = parts.sessions_of
    monkeypatch.setattr(parts, "sessions_of", lambda *given: begun.append(1) or read(*given))
    made = read_pieces(source.parts, pieces, FEATURES, workers=2)
    for taken in range(1, 4):
        next(made)
        time.sleep(0.05)
        assert taken <= len(begun) <= taken + 2
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sessions")]


def test_batches_are_made_no_further_ahead_than_asked_for() -> None:
    begun = []

    def numbers() -> Any:
        for number in range(100):
            begun.append(number)
            yield number

    made = made_ahead(numbers(), 2)
    assert [next(made), next(made)] == [0, 1]
    time.sleep(0.05)
    assert len(begun) <= 5  # two taken, two waiting, one in the hand
    made.close()
    assert list(made_ahead(numbers(), 3)) == list(range(100))


@pytest.mark.parametrize("size", [1, 3, 8, 53, 200])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_processes_share_the_sessions_and_make_as_many_batches(size: int, ranks: int, folder: Path) -> None:
    for arguments in ({"batch_size": size}, {"max_events": 12 * size}):
        sources = [stream(folder, rank=rank, world_size=ranks, workers=0, **arguments) for rank in range(ranks)]
        for _ in range(2):
            made = [chosen(source) for source in sources]
            counts = {len(batches) for batches in made}
            assert len(counts) == 1
            seen = Counter(number for batches in made for batch in batches for number in batch)
            assert set(seen) == set(range(SESSIONS))
            # Only single sessions of the last step come twice, on a process that ran out of them.
            again = sum(seen.values()) - SESSIONS
            assert again <= (ranks - 1 if size == 1 else 0)
            if "batch_size" in arguments:
                assert counts == {len(sources[0])}
                assert max(len(batch) for batches in made for batch in batches) <= size


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_without_the_last_all_batches_are_full(ranks: int, folder: Path) -> None:
    for size in (1, 5, 7, 8, 35, 70, 105):
        for rank in range(ranks):
            source = stream(folder, batch_size=size, rank=rank, world_size=ranks, drop_last=True, workers=0)
            made = chosen(source)
            assert [len(batch) for batch in made] == [size] * (SESSIONS // ranks // size)
            assert len(source) == len(made)
            assert len({n for batch in made for n in batch}) == size * len(made)


def test_events_bound_the_cells_of_a_batch(folder: Path) -> None:
    for arguments in ({}, {"shuffle": False}, {"limit": 5}):
        cells = [columns["item_id"].shape for _, columns in stream(folder, max_events=36, **arguments)]
        assert max(rows * width for rows, width in cells) <= 36
        assert min(rows * width for rows, width in cells[:-1]) > 0
    # A session longer than that is alone; number n has 1 + n * 7 % 12 events.
    for numbers, columns in stream(folder, max_events=6):
        assert len(numbers) == 1 or columns["item_id"].numel() <= 6
    with pytest.raises(TypeError, match="max_events"):
        len(stream(folder, max_events=6))


def test_sessions_of_like_length_come_together(folder: Path) -> None:
    def padding(bucket: bool) -> int:
        made = stream(folder, bucket=bucket, buffer_size=200)
        return sum(int((columns["item_id"] == 0).sum()) for _, columns in made)

    assert padding(True) < 0.4 * padding(False)


def test_pinned_memory_is_where_the_gpu_takes_it_from(folder: Path) -> None:
    for _, columns in stream(folder, pin_memory=True):
        assert all(column.is_pinned() == torch.cuda.is_available() for column in columns.values())


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_files_arrive_and_name_them(workers: int, tmp_path: Path) -> None:
    pq.write_table(columns_of(0, 20), tmp_path / "a.parquet")
    pq.write_table(columns_of(990, 20), tmp_path / "b.parquet")  # codes to 1010
    with pytest.raises(UserError, match=r"'item_id' of .*b\.parquet holds codes from .* allows 1 to 999"):
        list(stream(tmp_path, workers=workers))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("batches", "sessions"))]
    file = tmp_path / "b.parquet"
    source = stream(tmp_path, workers=workers, shuffle=False)
    whole = file.read_bytes()
    file.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(UserError, match=r"b\.parquet cannot be read"):
        list(source)
    file.write_text("hello")
    with pytest.raises(UserError, match=r"b\.parquet cannot be read"):
        stream(tmp_path)
    pq.write_table(columns_of(0, 20).drop_columns(["price"]), file)
    with pytest.raises(UserError, match=r"b\.parquet has no column 'price'"):
        stream(tmp_path)


def test_what_cannot_be_is_told(folder: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ({"max_events": 5, "batch_size": 5}, "either"),
        ({"max_events": 5, "drop_last": True}, "drop_last"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"buffer_size": 0}, "buffer_size"),
        ({"workers": -1}, "workers"),
        ({"rank": 2, "world_size": 2}, "rank"),
    ):
        with pytest.raises(ValueError, match=message):
            stream(folder, **arguments)
    with pytest.raises(UserError, match="hold 211 sessions: too few for 212"):
        stream(folder, world_size=212)
    with pytest.raises(UserError, match="no parquet files"):
        stream(tmp_path)
    state = stream(folder).state_dict()
    with pytest.raises(UserError, match="other seed"):
        stream(folder, seed=3).load_state_dict(state)
    (tmp_path / "a.parquet").write_bytes((folder / "a.parquet").read_bytes())
    with pytest.raises(UserError, match="other files"):
        stream(tmp_path).load_state_dict(state)


def test_row_groups_say_how_much_they_hold(folder: Path) -> None:
    found = parts_of(parquet_files(folder), FEATURES)
    assert [part.rows for part in found if part.rows] == [30, 30, 30, 10, 37, *[10] * 7, 4]
    # Number n has 1 + n * 7 % 12 events of 4 values, one shop and n % 3 hobbies, of which none takes a place too.
    events, hobbies = (sum(1 + n * 7 % 12 for n in range(30)), sum(max(1, n % 3) for n in range(30)))
    assert found[0].size == 8 * (4 * events + 30 + hobbies)


def test_a_file_that_changes_under_the_reader_is_told(tmp_path: Path) -> None:
    pq.write_table(columns_of(0, 40), tmp_path / "a.parquet")
    source = stream(tmp_path, shuffle=False)
    pq.write_table(columns_of(0, 20), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet was changed while it was read"):
        list(source)
