"""One vector for a session, from the vectors of its events. Padding never counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modeling.sequence import SessionStates

SUMMARY_TYPES = ("first", "last", "mean", "cls_index")


class SequenceSummary(nn.Module):
    """Reduces states to a vector a session.

    Parameters
    ----------
    summary_type : {"first", "last", "mean", "cls_index"} or None
        The first event; the last one; the mean of all; where the objective reads its answer (``states.read``). None
        keeps a vector a position, zero at padding.

    Raises
    ------
    ValueError
        When it is none of these.
    """

    def __init__(self, summary_type: str | None = "last") -> None:
        super().__init__()
        if summary_type is not None and summary_type not in SUMMARY_TYPES:
            raise ValueError(f"summary_type must be one of {', '.join(SUMMARY_TYPES)} or None, not {summary_type!r}")
        self.summary_type = summary_type

    def forward(self, states: SessionStates) -> Tensor:
        """[B, D], or [B, L, D] without a summary."""
        values, attend = states.values, states.attend
        if self.summary_type is None:
            return values.masked_fill(~attend[..., None], 0)
        if self.summary_type == "first":
            return values[:, 0]
        if self.summary_type == "mean":
            # Filled, not multiplied: what stands at padding may be anything, even infinite.
            return values.masked_fill(~attend[..., None], 0).sum(1) / attend.sum(1, keepdim=True).clamp(min=1)
        position = states.read
        if self.summary_type == "last":
            position = (torch.arange(attend.shape[1], device=attend.device) * attend).amax(1)
        return values.gather(1, position[:, None, None].expand(-1, 1, values.shape[2]))[:, 0]
