"""How the vectors of several features become one. Names are in `aggregation_registry`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modeling.schema import Feature
from modeling.serialization import part


class TabularAggregation(nn.Module):
    """Base of the aggregations: ``forward`` takes the features' vectors by name, and gives one tensor.

    The item comes first, where the schema is known, then the others by name. A feature with a vector a session
    [B, D] beside features with one an event [B, L, D] counts at every event.
    """

    name = ""

    def __init__(self) -> None:
        super().__init__()
        self.item = ""

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    def use_features(self, features: Sequence[Feature]) -> None:
        """Learn which of the features is the item id."""
        self.item = next((feature.name for feature in features if feature.item), self.item)

    def order(self, names: Mapping[str, Any]) -> list[str]:
        """Names as they come one behind another."""
        return sorted(names, key=lambda name: (name != self.item, name))

    def width(self, widths: Mapping[str, int]) -> int:
        """Width of the result, from the widths of the features.

        Raises
        ------
        ValueError
            When they do not fit.
        """
        raise NotImplementedError

    def prepared(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The vectors in order, those of sessions spread over the events."""
        if not inputs:
            raise ValueError(f"{type(self).__name__} has nothing to join: there are no features")
        ordered = {name: inputs[name] for name in self.order(inputs)}
        events = [vectors.shape[1] for vectors in ordered.values() if vectors.dim() == 3]
        if events:
            ordered = {
                name: vectors[:, None].expand(-1, events[0], -1) if vectors.dim() == 2 else vectors
                for name, vectors in ordered.items()
            }
        return ordered

    def _equal(self, inputs: Mapping[str, Tensor], dims: int | None) -> None:
        if torch.jit.is_tracing():
            return  # sizes are no numbers then; run eagerly, the same columns are checked
        first = next(iter(inputs))
        for name, vectors in inputs.items():
            if vectors.shape[:dims] != inputs[first].shape[:dims]:
                raise ValueError(
                    f"{self.name} needs features of equal shape{' but for the last dimension' if dims else ''}: "
                    f"{first!r} has {list(inputs[first].shape)}, {name!r} has {list(vectors.shape)}"
                )


@part
class ConcatFeatures(TabularAggregation):
    """One behind another along the last dimension: [..., sum of the widths]."""

    name = "concat"

    def width(self, widths: Mapping[str, int]) -> int:
        """The sum of the widths."""
        return sum(widths.values())

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """[..., D1], [..., D2], ... -> [..., D1 + D2 + ...]."""
        ordered = self.prepared(inputs)
        self._equal(ordered, -1)
        return torch.cat(list(ordered.values()), dim=-1)


@part
class StackFeatures(TabularAggregation):
    """A new dimension for the features: [..., width, features] by default.

    Parameters
    ----------
    axis : int
        Where the new dimension goes.
    """

    name = "stack"

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"axis": self.axis}

    def width(self, widths: Mapping[str, int]) -> int:
        """The last dimension of the result."""
        width = _equal_width(self.name, widths)
        return len(widths) if self.axis == -1 else width

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """F tensors [..., D] -> [..., D, F]."""
        ordered = self.prepared(inputs)
        self._equal(ordered, None)
        return torch.stack(list(ordered.values()), dim=self.axis)


@part
class ElementwiseSum(TabularAggregation):
    """The sum of the features' vectors, which must be equally wide."""

    name = "element-wise-sum"

    def width(self, widths: Mapping[str, int]) -> int:
        """The one width."""
        return _equal_width(self.name, widths)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """F tensors [..., D] -> [..., D]."""
        ordered = self.prepared(inputs)
        self._equal(ordered, None)
        return torch.stack(list(ordered.values())).sum(0)


@part
class ElementwiseSumItemMulti(TabularAggregation):
    """The item's vector, times the sum of the others, component by component.

    Parameters
    ----------
    schema : Schema or list of Feature, optional
        Says which feature is the item, where the module around it does not know.
    item : str
        Its name, instead.
    """

    name = "element-wise-sum-item-multi"

    def __init__(self, schema: Any = None, item: str = "") -> None:
        super().__init__()
        self.item = item
        if schema is not None:
            from modeling.inputs.tabular import as_features

            self.use_features(as_features(schema))

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"item": self.item}

    def width(self, widths: Mapping[str, int]) -> int:
        """The one width."""
        self._check(widths)
        return _equal_width(self.name, widths)

    def _check(self, names: Mapping[str, Any]) -> None:
        if self.item not in names:
            raise ValueError(f"{self.name} needs the item id among the features: give the schema that tags it item_id")
        if len(names) < 2:
            raise ValueError(f"{self.name} needs another feature beside {self.item!r}")

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """F tensors [..., D] -> [..., D]."""
        self._check(inputs)
        ordered = self.prepared(inputs)
        self._equal(ordered, None)
        item, *others = ordered.values()
        return item * torch.stack(others).sum(0)


def _equal_width(name: str, widths: Mapping[str, int]) -> int:
    found = sorted(set(widths.values()))
    if len(found) != 1:
        listed = ", ".join(f"{feature!r} {width}" for feature, width in widths.items())
        raise ValueError(f"{name} needs features of equal width, found {listed or 'none'}")
    return found[0]


aggregation_registry: dict[str, type[TabularAggregation]] = {
    kind.name: kind for kind in (ConcatFeatures, StackFeatures, ElementwiseSum, ElementwiseSumItemMulti)
}
# The names that Transformers4Rec gave them for sequences.
aggregation_registry["sequential-concat"] = ConcatFeatures


def aggregation_from(given: str | TabularAggregation | None) -> TabularAggregation | None:
    """An aggregation from its registered name, or the given one.

    Raises
    ------
    ValueError
        When the name is not registered.
    """
    if not isinstance(given, str):
        return given
    if given not in aggregation_registry:
        raise ValueError(f"aggregation must be one of {', '.join(aggregation_registry)}, not {given!r}")
    return aggregation_registry[given]()
