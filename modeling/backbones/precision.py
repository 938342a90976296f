"""Double precision all the way, for experiments whose outcome must not drown in rounding.

Many backbones compute norms, softmaxes and rotations in single precision whatever their weights are. Inside `double`
such a request is granted in double precision, so that two ways to compute the same thing differ by some 1e-12 and a
dependence that must not be there by 1e-3 and more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_LESS = (torch.float32, torch.float16, torch.bfloat16)


def _raised(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in _LESS else value


class _Double(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.float, Tensor.half, Tensor.bfloat16):
            return args[0].double()
        return func(*map(_raised, args), **{name: _raised(value) for name, value in (kwargs or {}).items()})


@contextmanager
def double() -> Iterator[None]:
    """Grant every request for a shorter floating type in double precision, new tensors without a type included."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Double():
            yield
    finally:
        torch.set_default_dtype(before)


def loud(module: nn.Module, seed: int = 0, scale: float = 1.0) -> nn.Module:
    """Add noise to every weight, in place, so that nothing starts as zero and every path through the network shows.

    A fresh network hides its faults: branches whose last matrix is zero, biases that are zero, norms that are one.

    Parameters
    ----------
    module : nn.Module
        What to disturb. Embedding rows for padding stay zero.
    seed : int
        Of the noise.
    scale : float
        Matrices get noise of ``scale / sqrt(columns)``, which keeps the size of vectors; other parameters, among
        them logarithms of decay rates and gains of norms, a fifth of `scale`.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.is_floating_point():
                continue
            size = parameter.shape[-1] ** -0.5 if parameter.dim() >= 2 else 0.2
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((scale * size * noise).to(parameter))
        for part in module.modules():
            if isinstance(part, nn.Embedding) and part.padding_idx is not None:
                part.weight[part.padding_idx] = 0
    return module
