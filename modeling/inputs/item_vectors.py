"""Vectors that the items had before training: frozen tables inside the model, looked up by the item's code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from common.errors import UserError
from modeling.inputs.pretrained import PretrainedEmbeddingFeatures
from modeling.inputs.tabular import TabularModule, as_features, select
from modeling.schema import Feature
from modeling.serialization import part


@part
class ItemVectors(TabularModule):
    """A vector for each item, from tables that training does not change, projected like any pre-trained vector.

    The tables are buffers: saved, exported and moved with the model, so that batches hold item codes only.

    Parameters
    ----------
    item : Feature
        The item id.
    vectors : mapping of str to int
        The tables: name -> width.
    pretrained_output_dims : int, optional
        Project each vector to this width.
    normalizer : "layer-norm" or nn.Module, optional
        See `PretrainedEmbeddingFeatures`.

    Raises
    ------
    ValueError
        When a table has no width.
    """

    def __init__(
        self,
        item: Feature | Mapping[str, Any],
        vectors: Mapping[str, int],
        pretrained_output_dims: int | None = None,
        normalizer: Any = None,
    ) -> None:
        super().__init__(schema=as_features([item]))
        self.vectors = dict(vectors)
        looked_up = [Feature(name, "embedding", width=width) for name, width in self.vectors.items()]
        self.projected = PretrainedEmbeddingFeatures(looked_up, pretrained_output_dims, normalizer=normalizer)
        for number, width in enumerate(self.vectors.values()):
            self.register_buffer(f"table_{number}", torch.zeros(self.features[0].cardinality, width))
        self.finish()

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, without the vectors: those are saved with the weights."""
        dims = self.projected.pretrained_output_dims
        return {
            "item": self.features[0].to_json(),
            "vectors": self.vectors,
            "pretrained_output_dims": next(iter(dims.values()), None),
            "normalizer": self.projected.normalizer,
        }

    @property
    def widths(self) -> dict[str, int]:
        """The vectors' widths behind the projection."""
        return self.projected.widths

    def table(self, name: str) -> Tensor:
        """The vectors of one name: float32 [cardinality, width], by code."""
        return self.get_buffer(f"table_{list(self.vectors).index(name)}")

    def fill(self, tables: Mapping[str, Tensor]) -> None:
        """Put the vectors into the tables.

        Raises
        ------
        ValueError
            When a table is missing or of another shape.
        """
        for name in self.vectors:
            own = self.table(name)
            if name not in tables or tables[name].shape != own.shape:
                given = list(tables[name].shape) if name in tables else "missing"
                raise ValueError(f"the vectors {name!r} are {given} and must be {list(own.shape)}")
            own.copy_(tables[name])

    def transform(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Columns by name -> vectors by name: [B, L, width]."""
        item = select(inputs, self.features[0].name)
        found: dict[str, Tensor] = self.projected({name: self.table(name)[item] for name in self.vectors})
        return found


def read_vectors(features: Path) -> dict[str, Tensor]:
    """The vectors of a features folder, each table scaled to components of mean square 1.

    Encoders give vectors of any length; what the rest of the model expects is of the size of what it learns.

    Parameters
    ----------
    features : Path
        ``vectors/<name>.safetensors`` in it hold ``vectors``, float32 [cardinality, width].

    Raises
    ------
    UserError
        When a file is damaged.
    """
    found = {}
    for path in sorted((features / "vectors").glob("*.safetensors")):
        try:
            matrix = load_file(path)["vectors"]
        except (SafetensorError, KeyError, OSError) as error:
            raise UserError(f"{path} cannot be read ({error}): run 'nextitem preprocess' again") from error
        present = matrix[(matrix != 0).any(1)]
        found[path.stem] = matrix / present.square().mean().sqrt() if len(present) else matrix
    return found
