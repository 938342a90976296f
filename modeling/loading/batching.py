"""Sessions of a window as batches: by number of sessions or of events, those of like length together."""

from __future__ import annotations

import torch
from torch import Tensor

# Sessions of like length are looked for among those of this many batches: their order stays random.
BUCKET_BATCHES = 50


def by_events(order: Tensor, lengths: Tensor, max_events: int) -> list[Tensor]:
    """Cut an order of sessions so that each batch, padded, has `max_events` cells at most.

    Parameters
    ----------
    order : Tensor [N], int64
        Sessions.
    lengths : Tensor [S], int64
        Events of every session.
    max_events : int
        Sessions of a batch times the longest of them is no more; a longer session is a batch of its own.
    """
    found, start, n = [], 0, lengths[order].clamp(min=1)
    while start < len(order):
        ahead = n[start : start + max_events]
        cells = ahead.cummax(0).values * torch.arange(1, len(ahead) + 1)
        size = max(1, int(torch.searchsorted(cells, max_events, right=True)))
        found.append(order[start : start + size])
        start += size
    return found


def batches_of(
    lengths: Tensor, batch_size: int | None, max_events: int | None, bucket: bool, random: torch.Generator | None
) -> list[Tensor]:
    """All sessions of a window, which come in random order, as batches.

    Parameters
    ----------
    lengths : Tensor [W], int64
        Events of each session.
    batch_size, max_events : int or None
        Sessions of a batch, or see `by_events`.
    bucket : bool
        Batches of sessions of like length.
    random : torch.Generator, optional
        Puts the batches into random order.

    Returns
    -------
    list of Tensor [B], int64
        Places of sessions in the window. With a batch size, all but one have as many.
    """
    order = torch.arange(len(lengths))
    chunks: list[Tensor] = []
    size = batch_size or max(1, int((max_events or 1) / max(1.0, float(lengths.float().mean()))))
    for some in order.split(size * BUCKET_BATCHES) if bucket else [order]:
        if bucket:
            some = some[torch.sort(lengths[some], stable=True).indices]
        chunks += by_events(some, lengths, max_events) if max_events else some.split(size)
    if random is None:
        return chunks
    return [chunks[i] for i in torch.randperm(len(chunks), generator=random).tolist()]


def spread(chunks: list[Tensor], count: int) -> list[Tensor]:
    """The same sessions as `count` batches where there are fewer: the largest are halved.

    Where all batches are down to one session, some come twice.
    """
    chunks = list(chunks)
    while len(chunks) < count:
        largest = max(range(len(chunks)), key=lambda i: len(chunks[i]))
        chunk = chunks[largest]
        half = (len(chunk) + 1) // 2
        chunks[largest : largest + 1] = [chunk[:half], chunk[half:]] if len(chunk) > 1 else [chunk, chunk]
    return chunks
