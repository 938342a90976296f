"""Blocks to put between the inputs and the head: MLPs, any torch module, and their sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modeling.sequence import SessionStates
from modeling.serialization import part


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


def run(module: nn.Module, states: Any, **options: Any) -> Any:
    """Apply a module to states, or to their vectors where it knows nothing of states."""
    if getattr(module, "takes_states", False) or not isinstance(states, SessionStates):
        return module(states, **options)
    output = module(states.values)
    return states.with_values(output[0] if isinstance(output, tuple) else output)


@part
class MLPBlock(Building):
    """Linear layers, each with activation, normalisation and dropout.

    Parameters
    ----------
    dimensions : int or sequence of int
        Width of each layer's output.
    activation : type of nn.Module, str or None
        A class of ``torch.nn`` or its name; None for linear layers.
    use_bias : bool
        Whether the linear layers have a bias.
    dropout : float, optional
        Probability, after each layer.
    normalization : {"layer_norm"}, optional
        Normalisation after each layer.
    """

    def __init__(
        self,
        dimensions: int | Sequence[int],
        activation: type[nn.Module] | str | None = nn.ReLU,
        use_bias: bool = True,
        dropout: float | None = None,
        normalization: str | None = None,
    ) -> None:
        super().__init__()
        self.dimensions = [dimensions] if isinstance(dimensions, int) else list(dimensions)
        self.activation = activation.__name__ if isinstance(activation, type) else activation
        if self.activation is not None and self.activation not in nn.modules.activation.__all__:
            raise ValueError(f"there is no activation {self.activation!r} in torch.nn")
        if normalization not in (None, "layer_norm"):
            raise ValueError(f"normalization must be 'layer_norm' or None, not {normalization!r}")
        self.use_bias, self.dropout, self.normalization = use_bias, dropout, normalization
        self.output_dim = self.dimensions[-1]
        self.layers = nn.Sequential()

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("dimensions", "activation", "use_bias", "dropout", "normalization")
        return {name: getattr(self, name) for name in names}

    def build(self, input_dim: int) -> MLPBlock:
        """Create the layers."""
        layers: list[nn.Module] = []
        for width in self.dimensions:
            layers.append(nn.Linear(input_dim, width, bias=self.use_bias))
            if self.activation is not None:
                layers.append(getattr(nn, self.activation)())
            if self.normalization == "layer_norm":
                layers.append(nn.LayerNorm(width))
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
            input_dim = width
        self.layers = nn.Sequential(*layers)
        return self

    def forward(self, values: Tensor) -> Tensor:
        """[..., input width] -> [..., last of `dimensions`]."""
        return self.layers(values)


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

    def use_masking(self, masking: Any) -> None:
        """Tell the transformers inside which objective they serve."""
        for block in self.blocks:
            if isinstance(block, Building):
                block.use_masking(masking)

    def forward(self, inputs: dict[str, Tensor] | SessionStates | Tensor, **options: Any) -> Any:
        """Run the blocks; `options` (``training``) go to the input module."""
        states: Any = inputs
        for index, block in enumerate(self.blocks):
            states = run(block, states, **(options if index == 0 and self.has_inputs else {}))
        return states


def zero_rows(table: nn.Embedding, count: int) -> None:
    """Set the first rows of a table to zero: padding, and codes that training never shows."""
    with torch.no_grad():
        table.weight[:count].zero_()
