"""`torch.compile` for the part that has tensors of fixed shape: the transformers, fed batches of one width.

Around them, the number of targets differs with every batch; a compiler would begin anew for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from modeling.backbones.block import TransformerBlock


@contextmanager
def compiled(model: nn.Module, backend: str, mode: str | None) -> Iterator[None]:
    """The model's transformers are compiled, in place, and are as they were afterwards.

    Parameters
    ----------
    model : nn.Module
        Its `TransformerBlock` are looked for.
    backend, mode : str, optional
        As `torch.compile` takes them.
    """
    found = [part.transformer for part in model.modules() if isinstance(part, TransformerBlock)]
    for transformer in found:
        transformer.compile(backend=backend, mode=mode, dynamic=False)
    try:
        yield
    finally:
        for transformer in found:
            transformer._compiled_call_impl = None  # what `compile` sets; torch has no word for taking it back


def widened(columns: dict[str, Tensor], model: Any, width: int) -> dict[str, Tensor]:
    """Columns of events, padded with 0 to one width.

    Parameters
    ----------
    columns : dict of Tensor
        [B, L] or [B, L, V] of events, [B] or [B, V] of sessions.
    model : Model
        Says which are of events.
    width : int
        Columns of the result, where there are fewer.
    """
    events = {feature.name for feature in model.features if feature.sequence}
    found = {}
    for name, column in columns.items():
        missing = width - column.shape[1] if name in events else 0
        found[name] = nn.functional.pad(column, (0, 0) * (column.dim() - 2) + (0, missing)) if missing > 0 else column
    return found
