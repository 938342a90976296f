"""What a baseline is fitted on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from modeling.data import Sessions


@dataclass(frozen=True)
class TrainingWindow:
    """The sessions to learn from.

    Attributes
    ----------
    sessions : Sessions
        The training window.
    item : str
        The item column.
    cardinality, reserved : int
        Size of the catalogue with reserved ids, and number of those.
    times : Tensor [S], optional
        When each session began, days since any moment. Baselines that know no time ignore it.
    """

    sessions: Sessions
    item: str
    cardinality: int
    reserved: int
    times: Tensor | None = None
