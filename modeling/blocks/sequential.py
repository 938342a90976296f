"""Blocks one behind another."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from modeling.blocks.base import Building, run
from modeling.sequence import SessionStates
from modeling.serialization import part


@part
class SequentialBlock(Building):
    """Blocks one behind another; the first may be the input module.

    Parameters
    ----------
    *blocks : nn.Module
        `TabularSequenceFeatures`, `MLPBlock`, `TransformerBlock`, `Block`, or another `SequentialBlock`.
    output_size : optional
        Accepted for compatibility; widths are found from the blocks.

    Raises
    ------
    ValueError
        When the objective of the inputs does not fit a transformer in the sequence.
    """

    takes_states = True

    def __init__(self, *blocks: nn.Module, output_size: Any = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.output_dim = 0
        self.has_inputs = bool(blocks) and hasattr(blocks[0], "feature_names")
        if self.has_inputs:
            self._build(self.inputs.output_dim, 1)

    def config(self) -> dict[str, Any]:
        """The blocks, described."""
        return {"blocks": list(self.blocks)}

    @classmethod
    def from_config(cls, blocks: list[nn.Module]) -> SequentialBlock:
        """From blocks that are already restored."""
        return cls(*blocks)

    @property
    def inputs(self) -> Any:
        """The input module, or None."""
        return self.blocks[0] if self.has_inputs else None

    def build(self, input_dim: int) -> SequentialBlock:
        """Build each block for the width of the one before."""
        self._build(input_dim, 0)
        return self

    def _build(self, width: int, start: int) -> None:
        for block in self.blocks[start:]:
            if isinstance(block, Building):
                block.build(width)
                width = block.output_dim
            elif isinstance(block, nn.Linear):
                width = block.out_features
        self.output_dim = width
        if self.has_inputs:
            self.use_masking(self.inputs.masking)
            self.use_length(self.inputs.max_sequence_length)

    def use_masking(self, masking: Any) -> None:
        """Tell the transformers inside which objective they serve."""
        for block in self.blocks:
            if isinstance(block, Building):
                block.use_masking(masking)

    def use_length(self, limit: int) -> None:
        """Tell the blocks inside how long sessions get."""
        for block in self.blocks:
            if isinstance(block, Building):
                block.use_length(limit)

    def forward(self, inputs: dict[str, Tensor] | SessionStates | Tensor, **options: Any) -> Any:
        """Run the blocks; `options` (``training``) go to the input module."""
        states: Any = inputs
        for index, block in enumerate(self.blocks):
            states = run(block, states, **(options if index == 0 and self.has_inputs else {}))
        return states
