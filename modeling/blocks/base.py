"""What a block is, and any torch module as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from modeling.sequence import SessionStates


class Building(nn.Module):
    """A block whose input width is known only when it is put behind another one.

    `takes_states` says whether ``forward`` wants the whole `SessionStates` or only its vectors.
    """

    takes_states = False
    output_dim: int

    def build(self, input_dim: int) -> Building:
        """Create the parameters for inputs of width `input_dim`; called once, by the block around it."""
        raise NotImplementedError

    def use_masking(self, masking: Any) -> None:
        """Learn which objective the block serves; most do not care."""

    def use_length(self, limit: int) -> None:
        """Learn how many positions a session has at most, a [MASK] at its end included; most do not care."""


def run(module: nn.Module, states: Any, **options: Any) -> Any:
    """Apply a module to states, or to their vectors where it knows nothing of states."""
    if getattr(module, "takes_states", False) or not isinstance(states, SessionStates):
        return module(states, **options)
    output = module(states.values)
    return states.with_values(output[0] if isinstance(output, tuple) else output)


class Block(Building):
    """Any torch module as a block; of a tuple (``nn.GRU``) the first element counts.

    Parameters
    ----------
    module : nn.Module
        Maps [B, L, input width] to [B, L, output width].
    output_size : int or sequence of int
        The output's width, or its shape, of which the last element counts.
    """

    def __init__(self, module: nn.Module, output_size: int | Sequence[int]) -> None:
        super().__init__()
        self.module = module
        self.output_dim = output_size if isinstance(output_size, int) else list(output_size)[-1]

    def build(self, input_dim: int) -> Block:
        """Nothing to create."""
        return self

    def forward(self, values: Tensor) -> Tensor:
        """The module's (first) output."""
        output = self.module(values)
        return output[0] if isinstance(output, tuple) else output
