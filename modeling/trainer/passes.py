"""Batches that come one after another, behind the face of `modeling.trainer.batches.Batches`: streams and iterables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from common.errors import UserError
from modeling.loader import MerlinDataLoader
from modeling.loading.stream import SessionStream
from modeling.trainer.batches import Batches, Numbers


class StreamBatches(Batches):
    """Of sessions that are streamed from files; the loader's stream knows its share.

    Parameters
    ----------
    loader : MerlinDataLoader
        Of a `SessionStream` with a batch size.
    """

    def __init__(self, loader: MerlinDataLoader) -> None:
        assert isinstance(loader.sessions, SessionStream)
        if loader.sessions.batch_size is None:
            raise UserError("the Trainer needs a stream with batch_size, not max_events")
        self._loader, self._stream = loader, loader.sessions
        self.sessions, self.batch_size = self._stream.sessions, loader.sessions.batch_size
        self._pass: Iterator[Any] = iter(())
        self._next = (-1, 0)
        self._first = self._given = self._stream.rank * self.sessions // self._stream.world_size

    def batch(self, epoch: int, number: int) -> tuple[Numbers, Any]:
        """See `Batches.batch`; one that is not the next is sought without reading what lies before it."""
        if (epoch, number) != self._next:
            # All windows but the last of a pass have as many batches.
            by_window = max(1, self._stream.buffer_size // 2 // self.batch_size)
            place = {"epoch": epoch, "window": number // by_window, "batch": number % by_window}
            if hasattr(self._pass, "close"):
                self._pass.close()
            self._loader.load_state_dict({**place, "stream": self._stream.state_dict()["stream"]})
            self._pass, self._given = iter(self._loader), self._first + number * self.batch_size
        batch = next(self._pass)
        self._next = epoch, number + 1
        size = len(next(iter((batch if isinstance(batch, dict) else batch[0]).values())))
        self._given += size
        # True of data in the order of the files, which evaluation asks for.
        return torch.arange(self._given - size, self._given), batch

    def __len__(self) -> int:
        return len(self._stream)

    def identity(self) -> dict[str, Any]:
        """See `Batches.identity`."""
        own = dict(self._stream.state_dict()["stream"])
        del own["rank"]  # a checkpoint is of all processes
        return own


class GivenBatches(Batches):
    """Of any iterable of batches; each process goes over all of it and takes its share.

    Parameters
    ----------
    batches : iterable
        Each time the same, for runs that resume exactly. `set_epoch` of it is called, if it has that.
    rank, world_size : int
        Which process of how many this is.
    whole : bool
        Leave out the last batches that are not enough for all processes.
    """

    def __init__(self, batches: Iterable[Any], rank: int, world_size: int, whole: bool) -> None:
        self._batches, self._rank, self._world_size, self._whole = batches, rank, world_size, whole
        self._pass: Iterator[Any] = iter(())
        self._next, self._seen = (-1, 0), 0
        self.batch_size = int(getattr(batches, "batch_size", None) or 1)
        try:
            self.sessions = len(batches) * self.batch_size  # type: ignore[arg-type]
        except TypeError:
            self.sessions = 0

    def batch(self, epoch: int, number: int) -> tuple[Numbers, Any]:
        """See `Batches.batch`."""
        if (epoch, number) != self._next:
            if hasattr(self._batches, "set_epoch"):
                self._batches.set_epoch(epoch)
            self._pass, self._seen = iter(self._batches), 0
            for _ in range(number):
                self._round()
        self._next = epoch, number + 1
        return self._round()

    def _round(self) -> tuple[Numbers, Any]:
        """The batch of this process among the next ones of all."""
        found = None
        for i in range(self._world_size):
            batch = next(self._pass, None)
            if batch is None:
                break
            columns = batch if isinstance(batch, dict) else batch[0]
            size = len(next(iter(columns.values())))
            if i == self._rank:
                found = torch.arange(self._seen, self._seen + size), batch
            self._seen += size
        if found is None:
            raise StopIteration
        return found

    def __len__(self) -> int:
        count = len(self._batches)  # type: ignore[arg-type]
        rest = 0 if self._whole else int(self._rank < count % self._world_size)
        return count // self._world_size + rest
