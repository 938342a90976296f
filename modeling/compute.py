"""Where to compute, and with how many threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device for ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    UserError
        When a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device is 'cuda' and torch finds no GPU: use 'cpu' or 'auto'")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Set torch's CPU threads for a while; half of the cores without a number.

    Small models gain little from the other half, and lose tenfold when anything else wants a core: each of the many
    short parallel sections then waits for a thread that is not running.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or max(1, (os.cpu_count() or 2) // 2))
    try:
        yield
    finally:
        torch.set_num_threads(before)
