"""Batches by epoch and number: of one process and of several."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import UserError
from modeling.loader import MerlinDataLoader
from modeling.trainer.batches import MemoryBatches, in_epochs
from modeling.trainer.passes import GivenBatches, StreamBatches

from .small import ITEM, sessions, write


def memory(size: int, rank: int, world_size: int, shuffle: bool = True, drop_last: bool = False) -> MemoryBatches:
    return MemoryBatches(MerlinDataLoader(sessions(45), size), shuffle, drop_last, 5, rank, world_size)


def stream(file: Path, shuffle: bool = True, rank: int = 0, world_size: int = 1, size: int = 4) -> StreamBatches:
    loader = MerlinDataLoader.from_schema(
        None,
        str(file),
        size,
        features=[ITEM],
        targets=[],
        shuffle=shuffle,
        in_memory=False,
        buffer_size=16,
        global_rank=rank,
        global_size=world_size,
    )
    return StreamBatches(loader)


def numbers(batches: Any, epoch: int = 0) -> list[list[int]]:
    return [sorted(batches.batch(epoch, i)[0].tolist()) for i in range(len(batches))]


def test_processes_share_the_batches_of_one() -> None:
    for shuffle in (True, False):
        for epoch in (0, 3):
            alone = numbers(memory(8, 0, 1, shuffle), epoch)
            parts = [numbers(memory(4, rank, 2, shuffle), epoch) for rank in (0, 1)]
            assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == alone
            assert sorted(chain.from_iterable(alone)) == list(range(45))
    assert numbers(memory(8, 0, 1), 0) != numbers(memory(8, 0, 1), 1)


def test_each_process_has_something_in_every_training_batch() -> None:
    """45 sessions in batches of 4 x 11 leave one, which is too few for four processes: another batch takes it."""
    parts = [memory(11, rank, 4) for rank in range(4)]
    assert [len(part) for part in parts] == [1] * 4
    assert sorted(chain.from_iterable(part.batch(0, 0)[0].tolist() for part in parts)) == list(range(45))
    assert len(memory(8, 0, 1, drop_last=True)) == 5
    with pytest.raises(UserError, match="too few"):
        memory(8, 0, 46)


def test_evaluation_sees_every_session_once_whatever_the_number_of_processes(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", 45, row_group=10)
    for count in (1, 2, 3, 7):
        for kind in ("memory", "stream", "given"):
            seen: list[int] = []
            rows = 0
            for rank in range(count):
                given: Any = memory(4, rank, count, shuffle=False)
                if kind == "stream":
                    given = stream(file, False, rank, count)
                if kind == "given":
                    given = GivenBatches(list(memory(4, 0, 1, shuffle=False)), rank, count, whole=False)
                for number, batch in given.numbered():
                    seen += number.tolist()
                    rows += len(batch["item_id"])
            assert (kind, sorted(seen), rows) == (kind, list(range(45)), 45)


def test_a_stream_is_entered_anywhere(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", 45, row_group=10)
    for epoch in (0, 2):
        batches = stream(file)
        in_order = [batches.batch(epoch, i)[1]["item_id"] for i in range(len(batches))]
        assert len(in_order) == 12
        for i in (11, 0, 5, 6, 3, 8):
            assert torch.equal(batches.batch(epoch, i)[1]["item_id"], in_order[i])
    rest = in_epochs(stream(file))
    assert len(list(rest)) == 12


def test_numbers_of_a_stream_are_rows_of_the_files(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", 45, row_group=10)
    whole = sessions(45)
    for rank in (0, 1):
        for number, batch in stream(file, False, rank, 2).numbered():
            assert torch.equal(whole.padded(number, 8)["item_id"], batch["item_id"])


def test_a_torch_dataloader_gives_the_batches_of_its_epoch() -> None:
    batches = memory(8, 0, 1)
    loader = in_epochs(batches)
    before = torch.random.get_rng_state()
    for epoch in (2, 0):
        loader.batch_sampler.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        for i, batch in enumerate(loader):
            assert torch.equal(batch["item_id"], batches.batch(epoch, i)[1]["item_id"])
    assert torch.equal(before, torch.random.get_rng_state())
