"""What a block is, and any torch module as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from modeling.sequence import SessionStates
from modeling.serialization import part

# Modules of torch that a saved model may name, with the arguments that make them again.
_RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
_SAVABLE = {
    "GRU": _RECURRENT,
    "LSTM": _RECURRENT,
    "RNN": (*_RECURRENT, "nonlinearity"),
    "Linear": ("in_features", "out_features", "bias"),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine"),
}


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

    def __rshift__(self, other: nn.Module) -> Any:
        """``block >> block``: a `SequentialBlock` of both."""
        from modeling.blocks.sequential import SequentialBlock

        return SequentialBlock(self, other)


def fit_behind(block: Building, inputs: Any, width: int) -> None:
    """Build a block for vectors of this width, and tell it what the input module knows of objective and lengths."""
    block.build(width)
    block.use_masking(getattr(inputs, "masking", None))
    if getattr(inputs, "max_sequence_length", None):
        block.use_length(inputs.max_sequence_length)


def run(module: nn.Module, states: Any, **options: Any) -> Any:
    """Apply a module to states, or to their vectors where it knows nothing of states."""
    if getattr(module, "takes_states", False) or not isinstance(states, SessionStates):
        return module(states, **options)
    output = module(states.values)
    return states.with_values(output[0] if isinstance(output, tuple) else output)


@part
class Block(Building):
    """Any torch module as a block; of a tuple (``nn.GRU``) the first element counts.

    Recurrent and linear modules of torch can be saved, others cannot.

    Parameters
    ----------
    module : nn.Module
        Maps [B, L, input width] to [B, L, output width]. For causal training it must not look ahead: the checks of
        `modeling.checks` tell.
    output_size : int or sequence of int
        The output's width, or its shape, of which the last element counts.

    Raises
    ------
    ValueError
        For a recurrent module that takes time first, or reads both ways (and so the padding before the events).
    """

    def __init__(self, module: nn.Module, output_size: int | Sequence[int]) -> None:
        super().__init__()
        if isinstance(module, nn.RNNBase) and not module.batch_first:
            raise ValueError(f"give nn.{type(module).__name__} batch_first=True: sessions are [batch, time, width]")
        if isinstance(module, nn.RNNBase) and module.bidirectional:
            raise ValueError(f"a bidirectional nn.{type(module).__name__} would read padding before the events")
        self.module = module
        self.output_dim = output_size if isinstance(output_size, int) else int(list(output_size)[-1])

    def config(self) -> dict[str, Any]:
        """The module's class and arguments.

        Raises
        ------
        ValueError
            When it is none of the modules that a saved model may name.
        """
        name = type(self.module).__name__
        if type(self.module) is not getattr(nn, name, None) or name not in _SAVABLE:
            known = ", ".join(_SAVABLE)
            raise ValueError(f"a Block of {name} cannot be saved, only of torch's own {known}: save its state_dict")
        arguments = {key: getattr(self.module, key) for key in _SAVABLE[name]}
        if name == "Linear":
            arguments["bias"] = self.module.bias is not None
        return {"module": name, "arguments": arguments, "output_size": self.output_dim}

    @classmethod
    def from_config(cls, module: str, arguments: dict[str, Any], output_size: int) -> Block:
        """The block that `config` described, with new weights."""
        if module not in _SAVABLE:
            raise ValueError(f"a saved Block cannot be of {module!r}")
        return cls(getattr(nn, module)(**arguments), output_size)

    def build(self, input_dim: int) -> Block:
        """Check that the vectors fit, where the module says what it takes."""
        wanted = getattr(self.module, "input_size", getattr(self.module, "in_features", input_dim))
        if wanted != input_dim:
            raise ValueError(f"the {type(self.module).__name__} takes vectors of width {wanted}, not {input_dim}")
        return self

    def use_masking(self, masking: Any) -> None:
        """Refuse what needs a transformer of two streams."""
        if masking is not None and masking.name == "plm":
            raise ValueError(f"{type(self.module).__name__} does not support masking 'plm': use an XLNet")

    def forward(self, values: Tensor) -> Tensor:
        """The module's (first) output."""
        output = self.module(values)
        return output[0] if isinstance(output, tuple) else output
