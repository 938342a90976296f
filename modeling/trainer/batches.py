"""Batches that can be asked for by epoch and number: what exact resuming and several processes need.

Which sessions a batch holds depends on the seed, the epoch and the number alone. The batches of W processes with the
same number are, together, what one process with W times the batch size gets (of data in memory).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from common.errors import UserError
from modeling.data import Sessions
from modeling.loader import Batch, MerlinDataLoader
from modeling.loading.batching import batches_of
from modeling.loading.order import generator

Numbers = Tensor


class Batches:
    """Base: the batches of one process.

    Attributes
    ----------
    sessions : int
        How many there are on all processes together; 0 where nothing says it.
    batch_size : int
        Sessions of a batch on this process.
    """

    sessions = 0
    batch_size = 1

    def batch(self, epoch: int, number: int) -> tuple[Numbers, Any]:
        """One batch.

        Returns
        -------
        Tensor [B], int64
            Which sessions, in the order of the data.
        dict of Tensor or pair of them
            Columns, or columns and targets.

        Raises
        ------
        StopIteration
            Behind the last batch, where their number is not known before.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        """Batches of an epoch."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """What the batches depend on: plain values, for checkpoints."""
        return {"sessions": self.sessions, "batch_size": self.batch_size}

    def __getitems__(self, place: tuple[int, int]) -> Any:
        # What torch's DataLoader calls with whatever its batch sampler yields.
        return self.batch(*place)[1]

    def numbered(self) -> Iterator[tuple[Numbers, Any]]:
        """All batches of the first epoch."""
        number = 0
        while number < _length(self):
            try:
                numbers, batch = self.batch(0, number)
            except StopIteration:
                return
            if len(numbers):  # a last batch may have nothing for this process
                yield numbers, batch
            number += 1

    def __iter__(self) -> Iterator[Any]:
        """The batches of the first epoch without their sessions' numbers."""
        return (batch for _, batch in self.numbered())


class MemoryBatches(Batches):
    """Of sessions in memory.

    Parameters
    ----------
    loader : MerlinDataLoader
        Has the sessions, the length limit, transforms and targets; its batch size is that of one process.
    shuffle : bool
        In another order each epoch. Otherwise every session comes exactly once over all processes.
    drop_last : bool
        Leave out a last batch of fewer sessions.
    seed, rank, world_size : int
        Of the order, and which process of how many this is.

    Raises
    ------
    UserError
        When there are fewer sessions than processes.
    """

    def __init__(
        self, loader: MerlinDataLoader, shuffle: bool, drop_last: bool, seed: int, rank: int, world_size: int
    ) -> None:
        assert isinstance(loader.sessions, Sessions)
        self._loader, self._data, self._shuffle = loader, loader.sessions, shuffle
        self.sessions, self.batch_size = len(loader.sessions), loader.batch_size
        self._drop_last, self._seed, self._rank, self._world_size = drop_last, seed, rank, world_size
        longest = int(self._data.lengths.max()) if len(self._data) else 1
        self._limit = loader.max_sequence_length or longest
        self._order: tuple[int, list[Tensor]] = (-1, [])
        if shuffle and self.sessions < world_size:
            raise UserError(f"there are {self.sessions} sessions: too few for {world_size} process(es)")

    def _chunks(self, epoch: int) -> list[Tensor]:
        if self._order[0] != epoch:
            random = generator(self._seed, epoch) if self._shuffle else None
            order = torch.arange(self.sessions) if random is None else torch.randperm(self.sessions, generator=random)
            lengths, size = self._data.lengths.clamp(max=self._limit), self.batch_size * self._world_size
            chunks = [order[chunk] for chunk in batches_of(lengths[order], size, None, True, random)]
            few = next((i for i, chunk in enumerate(chunks) if len(chunk) < size), None)
            if few is not None and self._drop_last:
                del chunks[few]
            elif few is not None and self._shuffle and len(chunks[few]) < self._world_size:
                rest = chunks.pop(few)  # too few for all processes
                chunks[0] = torch.cat([chunks[0], rest])
            self._order = epoch, [chunk[self._rank :: self._world_size] for chunk in chunks]
        return self._order[1]

    def batch(self, epoch: int, number: int) -> tuple[Numbers, Any]:
        """See `Batches.batch`."""
        chosen = self._chunks(epoch)[number]
        return chosen, _finished(self._loader, self._data.padded(chosen, self._limit))

    def __len__(self) -> int:
        return len(self._chunks(max(0, self._order[0])))

    def identity(self) -> dict[str, Any]:
        """See `Batches.identity`."""
        names = ("_limit", "_shuffle", "_drop_last", "_seed", "_world_size")
        offsets = hashlib.sha256(self._data.offsets.numpy().tobytes()).hexdigest()
        return {**super().identity(), **{name[1:]: getattr(self, name) for name in names}, "offsets": offsets}


class _Places(Iterable[tuple[int, int]]):
    """The batch sampler of `in_epochs`: epoch and number of each batch."""

    def __init__(self, batches: Batches) -> None:
        self._batches, self._epoch = batches, 0

    @property
    def batch_sampler(self) -> _Places:
        """Itself: Hugging Face looks here for whom to tell the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next pass is."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        number = 0
        while number < _length(self._batches):
            yield self._epoch, number
            number += 1


def in_epochs(batches: Batches) -> DataLoader[Any]:
    """A DataLoader whose batch sampler Hugging Face tells the epoch, and skips in when a run resumes."""
    # A generator of its own: beginning a pass takes nothing from the random numbers of dropout and masks.
    own = torch.Generator().manual_seed(0)
    sampler: Any = _Places(batches)
    return DataLoader(batches, batch_sampler=sampler, collate_fn=_as_it_is, generator=own)  # type: ignore[arg-type]


def _as_it_is(batch: Any) -> Any:
    return batch


def _length(batches: Any) -> float:
    try:
        return len(batches)
    except TypeError:
        return float("inf")


def _finished(loader: MerlinDataLoader, columns: Batch) -> Any:
    """What a loader does with columns: transforms, then targets apart."""
    for transform in loader.transforms:
        columns = transform(columns)
    if not loader.targets:
        return columns
    inputs = {name: column for name, column in columns.items() if name not in loader.targets}
    return inputs, {name: columns[name] for name in loader.targets}
