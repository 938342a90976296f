"""Blocks one behind another."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from modeling.blocks.base import Building, fit_behind, run
from modeling.sequence import SessionStates
from modeling.serialization import describe, part, restore


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
        self.blocks = nn.ModuleList(_flat(blocks))
        self.output_dim = 0
        first = self.blocks[0] if len(self.blocks) else None
        self.has_inputs = hasattr(first, "feature_names") and not isinstance(first, Building)
        if self.has_inputs:
            fit_behind(self, self.inputs, self.inputs.output_dim)

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

    @property
    def feature_names(self) -> list[str]:
        """The columns that `forward` needs."""
        return list(self.inputs.feature_names) if self.has_inputs else []

    @property
    def features(self) -> list[Any]:
        """The same, with their kinds."""
        return list(self.inputs.features) if self.has_inputs else []

    def build(self, input_dim: int) -> SequentialBlock:
        """Build each block behind the input module for the width of the one before."""
        width = input_dim
        for block in self.blocks[int(self.has_inputs) :]:
            if isinstance(block, Building):
                block.build(width)
                width = block.output_dim
            elif isinstance(block, nn.Linear):
                width = block.out_features
        self.output_dim = width
        return self

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

    def fresh_rest(self) -> SequentialBlock:
        """The blocks behind the input module once more, with random weights of their own."""
        rest = SequentialBlock(*(restore(describe(block)) for block in self.blocks[1:]))
        fit_behind(rest, self.inputs, self.inputs.output_dim)
        return rest

    def rest(self, states: Any, columns: dict[str, Tensor]) -> Any:
        """Run what comes behind the input module; `columns` are for blocks that need more than the states."""
        for block in self.blocks[int(self.has_inputs) :]:
            states = run(block, states, **({"columns": columns} if getattr(block, "reads_columns", False) else {}))
        return states

    def forward(self, inputs: dict[str, Tensor] | SessionStates | Tensor, **options: Any) -> Any:
        """Run the blocks; `options` (``training``) go to the input module."""
        if not self.has_inputs:
            return self.rest(inputs, {})
        assert isinstance(inputs, dict)
        return self.rest(self.inputs(inputs, **options), inputs)


def _flat(blocks: tuple[nn.Module, ...]) -> list[nn.Module]:
    """The blocks with the first one's own blocks in its place, so that the inputs stand first."""
    if blocks and isinstance(blocks[0], SequentialBlock) and blocks[0].has_inputs:
        return [*blocks[0].blocks, *blocks[1:]]
    return list(blocks)
