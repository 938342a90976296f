"""The objectives by name."""

from __future__ import annotations

from typing import Any

from modeling.masking.base import MaskSequence
from modeling.masking.causal import CausalLanguageModeling
from modeling.masking.masked import MaskedLanguageModeling

masking_registry: dict[str, type[MaskSequence]] = {
    "clm": CausalLanguageModeling,
    "causal": CausalLanguageModeling,
    "mlm": MaskedLanguageModeling,
    "masked": MaskedLanguageModeling,
}


def masking_from(name: str | MaskSequence, hidden_size: int, reserved: int, **arguments: Any) -> MaskSequence:
    """An objective from its registered name, or the given one.

    Raises
    ------
    ValueError
        When the name is not registered.
    """
    if isinstance(name, MaskSequence):
        return name
    if name not in masking_registry:
        raise ValueError(f"there is no masking {name!r}: choose one of {', '.join(masking_registry)}")
    return masking_registry[name](hidden_size=hidden_size, reserved=reserved, **arguments)
