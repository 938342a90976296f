"""What is done to columns before they are embedded (pre), or to vectors afterwards (post).

Names are in `tabular_transformation_registry`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modeling.schema import Feature
from modeling.serialization import part


class TabularTransformation(nn.Module):
    """Base of the transformations: tensors by name -> tensors by name."""

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    def use_features(self, features: Sequence[Feature]) -> None:
        """Learn what the columns are; most do not care."""

    def build(self, widths: Mapping[str, int]) -> None:
        """Create the parameters for vectors of these widths; most have none."""

    def widths(self, widths: Mapping[str, int]) -> dict[str, int]:
        """Widths behind the transformation."""
        return dict(widths)


@part
class StochasticSwapNoise(TabularTransformation):
    """Replace some values by others of the same column and batch, in training only: a regulariser.

    Each feature is swapped independently of the others, and only where there is a value: padding stays padding, and
    is never drawn. Used as `pre`, it changes what is embedded; the targets are taken from the columns as they came.

    Parameters
    ----------
    schema : Schema or list of Feature, optional
        Says which column is the item id: where it is 0, there is no event. The module around the noise tells it too.
        Without an item id each column's own `pad_token` marks padding.
    pad_token : int
        The value of padding.
    replacement_prob : float
        Probability that a value is replaced.
    """

    def __init__(self, schema: Any = None, pad_token: int = 0, replacement_prob: float = 0.1) -> None:
        super().__init__()
        if not 0 <= replacement_prob <= 1:
            raise ValueError(f"replacement_prob must be between 0 and 1, not {replacement_prob}")
        self.pad_token, self.replacement_prob = pad_token, replacement_prob
        self._known: dict[str, Feature] = {}
        if schema is not None:
            from modeling.inputs.tabular import as_features

            self.use_features(as_features(schema))

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"pad_token": self.pad_token, "replacement_prob": self.replacement_prob}

    def use_features(self, features: Sequence[Feature]) -> None:
        """Learn which column tells padding, and for which columns it does."""
        if features:
            self._known = {feature.name: feature for feature in features}

    def forward(self, inputs: Mapping[str, Tensor] | Tensor, input_mask: Tensor | None = None) -> Any:
        """Swap.

        Parameters
        ----------
        inputs : mapping of Tensor [B], [B, L] or [B, L, width], or one of them
            The columns.
        input_mask : Tensor [B, L], bool, optional
            Where there are values, instead of asking the item id.
        """
        if isinstance(inputs, Tensor):
            return self._swap(inputs, input_mask) if self.training else inputs
        if not self.training:
            return dict(inputs)
        item = next((name for name in inputs if name in self._known and self._known[name].item), None)
        found = {}
        for name, values in inputs.items():
            feature = self._known.get(name)
            vector = values.dim() == 3 if feature is None else feature.kind == "embedding"
            mask = input_mask if feature is None or feature.sequence else None
            if mask is None and item is not None and feature is not None and feature.sequence:
                mask = inputs[item] != self.pad_token
            found[name] = self._swap(values, mask, vector)
        return found

    def _swap(self, values: Tensor, mask: Tensor | None, vector: bool = False) -> Tensor:
        if mask is None:
            # A session's one number has no padding; codes, events and vectors do.
            number = values.dim() == 1 and values.is_floating_point()
            mask = torch.ones_like(values, dtype=torch.bool) if number else values != self.pad_token
            mask = mask.any(-1) if vector else mask
        chosen = mask & (torch.rand(mask.shape, device=values.device) < self.replacement_prob)
        real = values[mask]
        if not len(real):
            return values
        drawn = torch.randint(len(real), (int(chosen.sum()),), device=values.device)
        swapped = values.clone()
        swapped[chosen] = real[drawn]
        return swapped


@part
class TabularLayerNorm(TabularTransformation):
    """Normalise each feature's vector on its own: a `LayerNorm` for every feature wider than 1.

    Parameters
    ----------
    features_dim : mapping of str to int, optional
        The features' widths; the module around it tells them too.
    """

    def __init__(self, features_dim: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.norms = nn.ModuleDict()
        self.features_dim: dict[str, int] = {}
        self._names: dict[str, str] = {}
        if features_dim:
            self.build(features_dim)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"features_dim": self.features_dim}

    @classmethod
    def from_feature_config(cls, feature_config: Mapping[str, Any]) -> TabularLayerNorm:
        """For the widths of tables: `feature_config` maps names to `FeatureConfig`."""
        return cls({name: feature.table.dim for name, feature in feature_config.items()})

    def build(self, widths: Mapping[str, int]) -> None:
        """Create a norm for each feature."""
        from modeling.inputs.tables import key

        self.features_dim = dict(widths)
        self._names = {name: key(name) for name, width in widths.items() if width > 1}
        self.norms = nn.ModuleDict({own: nn.LayerNorm(widths[name]) for name, own in self._names.items()})

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Vectors [..., width] by name -> with mean 0 and variance 1, scaled and shifted as learnt."""
        strange = [name for name in inputs if name not in self.features_dim]
        if strange:
            raise ValueError(f"layer-norm was built without the width of the feature {strange[0]!r}: give features_dim")
        return {
            name: self.norms[self._names[name]](vectors) if name in self._names else vectors
            for name, vectors in inputs.items()
        }


@part
class TabularDropout(TabularTransformation):
    """Dropout on each feature's vector, in training only.

    Parameters
    ----------
    dropout_rate : float
        Probability of a component to become 0.
    """

    def __init__(self, dropout_rate: float = 0.0) -> None:
        super().__init__()
        self.dropout_rate = dropout_rate
        self.dropout = nn.Dropout(dropout_rate)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"dropout_rate": self.dropout_rate}

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Vectors by name -> the same with some components 0."""
        return {name: self.dropout(vectors) for name, vectors in inputs.items()}


@part
class SequentialTabularTransformations(TabularTransformation):
    """Transformations one behind another.

    Parameters
    ----------
    steps : list of TabularTransformation or str
        The transformations, or names of the registry.
    """

    def __init__(self, steps: Sequence[TabularTransformation | str]) -> None:
        super().__init__()
        self.steps = nn.ModuleList([step for step in map(_step, steps) if step is not None])

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"steps": list(self.steps)}

    def use_features(self, features: Sequence[Feature]) -> None:
        """Tell every step."""
        for step in self.steps:
            step.use_features(features)  # type: ignore[operator]

    def build(self, widths: Mapping[str, int]) -> None:
        """Build every step for the widths behind the one before."""
        for step in self.steps:
            step.build(widths)  # type: ignore[operator]
            widths = step.widths(widths)  # type: ignore[operator]

    def widths(self, widths: Mapping[str, int]) -> dict[str, int]:
        """Widths behind the last step."""
        for step in self.steps:
            widths = step.widths(widths)  # type: ignore[operator]
        return dict(widths)

    def forward(self, inputs: Mapping[str, Tensor]) -> Any:
        """All steps in turn."""
        for step in self.steps:
            inputs = step(inputs)
        return inputs


def _step(given: Any) -> TabularTransformation | None:
    return transformation_from(given, "a step")


tabular_transformation_registry: dict[str, type[TabularTransformation]] = {
    "stochastic-swap-noise": StochasticSwapNoise,
    "ssn": StochasticSwapNoise,
    "layer-norm": TabularLayerNorm,
    "dropout": TabularDropout,
}


def transformation_from(given: Any, where: str) -> TabularTransformation | None:
    """A transformation from its registered name, from a list of them, or the given one.

    Raises
    ------
    ValueError
        When the name is not registered, or it is no transformation; `where` says which argument it was.
    """
    if given is None or isinstance(given, TabularTransformation):
        return given
    if isinstance(given, list | tuple):
        return SequentialTabularTransformations(given)
    if not isinstance(given, str) or given not in tabular_transformation_registry:
        raise ValueError(f"{where} must be one of {', '.join(tabular_transformation_registry)}, not {given!r}")
    return tabular_transformation_registry[given]()
