"""What the objectives have in common. Ids below `reserved` (padding, null, unknown) are never a target."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modeling.sequence import SessionStates


def attend(n: Tensor, columns: int) -> Tensor:
    """[B, columns] bool: the first `n` positions of each row, and always the very first."""
    return torch.arange(columns, device=n.device) < n.clamp(min=1)[:, None]


class MaskSequence(nn.Module):
    """Base of the objectives.

    Parameters
    ----------
    hidden_size : int
        Width of the vectors that are masked.
    padding_idx : int
        The id of padding; only 0 is supported.
    reserved : int
        Ids below it carry no loss.
    """

    name = ""

    def __init__(self, hidden_size: int, padding_idx: int = 0, reserved: int = 1) -> None:
        super().__init__()
        if padding_idx != 0:
            raise ValueError(f"padding_idx must be 0, not {padding_idx}")
        self.hidden_size = hidden_size
        self.reserved = reserved

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"hidden_size": self.hidden_size, "reserved": self.reserved}

    def train_states(self, values: Tensor, items: Tensor) -> SessionStates:
        """States with targets, from vectors [B, L, D] and item ids [B, L]."""
        raise NotImplementedError

    def inference_states(self, values: Tensor, items: Tensor) -> SessionStates:
        """States that are read once a session."""
        raise NotImplementedError
