"""Linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from modeling.blocks.base import Building
from modeling.serialization import part


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
            why = ": it mixes the sessions of a batch, and padding" if normalization == "batch_norm" else ""
            raise ValueError(f"normalization must be 'layer_norm' or None, not {normalization!r}{why}")
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
