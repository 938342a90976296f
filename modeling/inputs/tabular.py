"""Modules whose inputs are columns by name: what they have in common, and the algebra to join them.

A tabular module maps a dict of tensors to a dict of tensors, or to one tensor where it has an aggregation::

    columns -> pre -> the module's own work -> post -> aggregation

``a >> b`` puts blocks one behind another, `MergeTabular` sets modules side by side, `AsTabular` gives a tensor a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from modeling.inputs.aggregation import TabularAggregation, aggregation_from
from modeling.inputs.transformations import TabularTransformation, transformation_from
from modeling.schema import Feature, features_of
from modeling.serialization import part


def as_features(schema: Any, item_required: bool = False) -> list[Feature]:
    """Features from a schema, from feature records, or from their JSON; none from None."""
    if schema is None:
        return []
    if isinstance(schema, list | tuple):
        return [f if isinstance(f, Feature) else Feature(**f) for f in schema]
    return features_of(schema, item_required=item_required)


def select(inputs: Mapping[str, Tensor], name: str) -> Tensor:
    """A column of a batch.

    Raises
    ------
    ValueError
        When the batch lacks it.
    """
    if name not in inputs:
        raise ValueError(f"the batch lacks the feature {name!r}; it has {', '.join(map(repr, inputs))}")
    return inputs[name]


class TabularModule(nn.Module):
    """Base of the modules that take columns by name.

    A subclass does its work in `transform`, says in `widths` how wide that makes each feature, and calls `finish` at
    the end of its constructor.

    Parameters
    ----------
    pre : str, TabularTransformation or list of them, optional
        What is done to the columns first: names of `tabular_transformation_registry`.
    post : str, TabularTransformation or list of them, optional
        What is done to each feature's vectors.
    aggregation : str or TabularAggregation, optional
        How the features are joined: a name of `aggregation_registry`. Without it the answer is a dict.
    schema : Schema or list of Feature, optional
        What the columns are.
    """

    def __init__(
        self,
        pre: Any = None,
        post: Any = None,
        aggregation: str | TabularAggregation | None = None,
        schema: Any = None,
    ) -> None:
        super().__init__()
        self.features = as_features(schema)
        self.pre = transformation_from(pre, "pre")
        self.post = transformation_from(post, "post")
        self.aggregation = aggregation_from(aggregation)

    def __getattr__(self, name: str) -> Any:
        # Reached when nothing else has the name, or a property raised AttributeError: say why the item is missing.
        if name in ("item", "item_table", "item_embedding_table"):
            raise AttributeError("these inputs have no item id: tag a column of the schema as item_id")
        return super().__getattr__(name)

    def finish(self) -> None:
        """Build the transformations and the aggregation for the features' widths.

        Raises
        ------
        ValueError
            When they do not fit the features.
        """
        for step in (self.pre, self.post, self.aggregation):
            if step is not None:
                step.use_features(self.features)
        if self.post is not None and self.widths:
            self.post.build(self.widths)
        if self.aggregation is not None and self.output_widths:
            self.aggregation.width(self.output_widths)

    def set_aggregation(self, aggregation: str | TabularAggregation | None) -> TabularModule:
        """Join the features in another way from now on."""
        self.aggregation = aggregation_from(aggregation)
        self.finish()
        return self

    def set_pre(self, pre: Any) -> TabularModule:
        """Do something else to the columns first."""
        self.pre = transformation_from(pre, "pre")
        self.finish()
        return self

    def set_post(self, post: Any) -> TabularModule:
        """Do something else to the vectors last."""
        self.post = transformation_from(post, "post")
        self.finish()
        return self

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "pre": self.pre,
            "post": self.post,
            "aggregation": self.aggregation,
            "schema": [feature.to_json() for feature in self.features] or None,
        }

    @property
    def feature_names(self) -> list[str]:
        """The columns that `forward` needs."""
        return [feature.name for feature in self.features]

    @property
    def sequence_names(self) -> list[str]:
        """Those of them with a value an event."""
        return [feature.name for feature in self.features if feature.sequence]

    @property
    def widths(self) -> dict[str, int]:
        """Width of each feature's vector as `transform` makes it; empty where nothing is known of it."""
        return {}

    @property
    def output_widths(self) -> dict[str, int]:
        """Width of each feature's vector behind `post`."""
        return self.post.widths(self.widths) if self.post is not None else self.widths

    @property
    def output_dim(self) -> int:
        """Width of the joined vector; 0 without an aggregation."""
        known = self.aggregation is not None and self.output_widths
        return self.aggregation.width(self.output_widths) if known and self.aggregation is not None else 0

    def transform(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The module's own work; nothing, by default."""
        return inputs

    def forward(self, inputs: Mapping[str, Tensor], **options: Any) -> Any:
        """Columns by name -> vectors by name, or one tensor. Options such as ``training`` are left to others."""
        columns = dict(inputs)
        if self.pre is not None:
            columns = self.pre(columns)
        vectors = self.transform(columns)
        if self.post is not None:
            vectors = self.post(vectors)
        return self.aggregation(vectors) if self.aggregation is not None else vectors

    def __rshift__(self, other: nn.Module) -> Any:
        """``self >> other``: a `SequentialBlock` of both."""
        return _in_sequence(self, other)

    def merge(self, *others: nn.Module, **arguments: Any) -> MergeTabular:
        """The module and others side by side."""
        return MergeTabular(self, *others, **arguments)


# Transformers4Rec tells a module from a block that is one too; here they are the same.
TabularBlock = TabularModule


def _in_sequence(first: nn.Module, second: nn.Module) -> Any:
    from modeling.blocks.sequential import SequentialBlock

    return SequentialBlock(first, second)


@part
class FilterFeatures(TabularTransformation):
    """Keep some of the features.

    Parameters
    ----------
    to_include : list of str
        Their names; those that a batch lacks are left out.
    """

    def __init__(self, to_include: Iterable[str]) -> None:
        super().__init__()
        self.to_include = list(to_include)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"to_include": self.to_include}

    def widths(self, widths: Mapping[str, int]) -> dict[str, int]:
        """The widths of what is kept."""
        return {name: width for name, width in widths.items() if name in self.to_include}

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by name -> some of them."""
        return {name: value for name, value in inputs.items() if name in self.to_include}

    def __rshift__(self, other: nn.Module) -> Any:
        """``self >> other``: a `SequentialBlock` of both."""
        return _in_sequence(self, other)


@part
class AsTabular(nn.Module):
    """A tensor as a feature of the given name.

    Parameters
    ----------
    output_name : str
        The name.
    """

    def __init__(self, output_name: str) -> None:
        super().__init__()
        self.output_name = output_name

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"output_name": self.output_name}

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """A tensor -> a dict with it."""
        return {self.output_name: inputs}

    def __rshift__(self, other: nn.Module) -> Any:
        """``self >> other``: a `SequentialBlock` of both."""
        return _in_sequence(self, other)


@part
class MergeTabular(TabularModule):
    """Tabular modules side by side: all their features together.

    Parameters
    ----------
    *modules_to_merge : nn.Module, list of them or dict of them
        Modules that map columns to vectors by name.
    pre, post, aggregation, schema
        As in `TabularModule`. Without a schema it is what the modules know.

    Raises
    ------
    ValueError
        When two modules give a feature of one name.
    """

    def __init__(
        self,
        *modules_to_merge: Any,
        pre: Any = None,
        post: Any = None,
        aggregation: str | TabularAggregation | None = None,
        schema: Any = None,
    ) -> None:
        super().__init__(pre, post, aggregation, schema)
        modules: list[nn.Module] = []
        for given in modules_to_merge:
            modules += given.values() if isinstance(given, dict) else given if isinstance(given, list) else [given]
        self.to_merge = nn.ModuleList(modules)
        if not self.features:
            known = [feature for module in modules for feature in _features(module)]
            self.features = list({feature.name: feature for feature in known}.values())
        names = [name for module in modules for name in widths_of(module)]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two of the merged modules give the feature {twice[0]!r}")
        self.finish()

    def config(self) -> dict[str, Any]:
        """The modules, described."""
        return {**super().config(), "modules_to_merge": list(self.to_merge)}

    @classmethod
    def from_config(cls, modules_to_merge: list[nn.Module], **arguments: Any) -> MergeTabular:
        """From modules that are already restored."""
        return cls(*modules_to_merge, **arguments)

    @property
    def widths(self) -> dict[str, int]:
        """The widths of all modules; empty where one of them does not tell."""
        found = [widths_of(module) for module in self.to_merge]
        return {name: width for widths in found for name, width in widths.items()} if all(found) else {}

    def transform(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """All modules' features."""
        merged: dict[str, Tensor] = {}
        for module in self.to_merge:
            output = module(inputs)
            if not isinstance(output, dict):
                raise ValueError(f"{type(module).__name__} gives one tensor: put AsTabular(name) behind it to merge it")
            if merged.keys() & output.keys():
                raise ValueError(f"two of the merged modules give the feature {min(merged.keys() & output.keys())!r}")
            merged.update(output)
        return merged


def _features(module: Any) -> Sequence[Feature]:
    own = getattr(module, "features", None)
    if own is None:
        own = getattr(getattr(module, "inputs", None), "features", [])
    return list(own)


def widths_of(module: Any) -> dict[str, int]:
    """Width of each feature that a module gives; empty where that is unknown, or it gives one tensor."""
    if isinstance(module, TabularModule):
        return module.output_widths if module.aggregation is None else {}
    blocks = getattr(module, "blocks", None)
    if blocks is not None and len(blocks) and isinstance(blocks[-1], AsTabular):
        return {blocks[-1].output_name: module.output_dim} if module.output_dim else {}
    return {}
