"""The objectives by name."""

from __future__ import annotations

from typing import Any

from modeling.masking.base import MaskSequence
from modeling.masking.causal import CausalLanguageModeling
from modeling.masking.masked import MaskedLanguageModeling
from modeling.masking.permutation import PermutationLanguageModeling
from modeling.masking.replacement import ReplacementLanguageModeling

masking_registry: dict[str, type[MaskSequence]] = {
    "clm": CausalLanguageModeling,
    "causal": CausalLanguageModeling,
    "mlm": MaskedLanguageModeling,
    "masked": MaskedLanguageModeling,
    "plm": PermutationLanguageModeling,
    "permutation": PermutationLanguageModeling,
    "rtd": ReplacementLanguageModeling,
    "replacement": ReplacementLanguageModeling,
}


def masking_from(name: str | MaskSequence, hidden_size: int, reserved: int, **arguments: Any) -> MaskSequence:
    """An objective from its registered name, or the given one.

    Raises
    ------
    ValueError
        When the name is not registered, or the given objective is of another width.
    """
    if isinstance(name, MaskSequence):
        if name.hidden_size != hidden_size:
            raise ValueError(f"the masking has hidden_size={name.hidden_size}, its inputs have width {hidden_size}")
        name.reserved = reserved  # an objective made by hand does not know the schema
        return name
    if name not in masking_registry:
        raise ValueError(f"there is no masking {name!r}: choose one of {', '.join(masking_registry)}")
    return masking_registry[name](hidden_size=hidden_size, reserved=reserved, **arguments)
