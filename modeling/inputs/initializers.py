"""Vectors that were computed elsewhere: from an encoder of texts or images, or from another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from common.errors import UserError
from modeling.serialization import part


@part
class PretrainedEmbeddingsInitializer:
    """Fill an embedding table with given vectors; a value of ``embeddings_initializers``.

    Parameters
    ----------
    weight_matrix : Tensor, numpy array or nested list [cardinality, width], optional
        Row i is the vector of code i. Row 0 is padding and becomes zero. None where a saved model is restored:
        the vectors are among its weights then.
    trainable : bool
        Whether training changes them. Frozen weights get no gradient, and so no weight decay either.
    shape : sequence of int, optional
        The matrix's shape, where there is no matrix.

    Raises
    ------
    ValueError
        When the matrix is no matrix or holds values that are not finite, and on use when the table has another
        shape.
    """

    def __init__(self, weight_matrix: Any = None, trainable: bool = False, shape: Any = None) -> None:
        self.weight_matrix: Tensor | None = None
        if weight_matrix is not None:
            matrix = torch.as_tensor(np.asarray(weight_matrix) if isinstance(weight_matrix, list) else weight_matrix)
            if matrix.dim() != 2:
                raise ValueError(f"pre-trained embeddings must be a matrix, not of shape {list(matrix.shape)}")
            self.weight_matrix = matrix.detach().to(torch.get_default_dtype())
            if not bool(self.weight_matrix.isfinite().all()):
                raise ValueError("pre-trained embeddings must be finite: the matrix holds NaN or infinity")
            shape = matrix.shape
        if shape is None:
            raise ValueError("give the initializer a matrix")
        self.shape = [int(size) for size in shape]
        self.trainable = trainable

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, without the vectors: those are saved with the weights."""
        return {"trainable": self.trainable, "shape": self.shape}

    def __call__(self, weight: Tensor) -> None:
        """Copy the matrix into `weight` [cardinality, width]."""
        if list(weight.shape) != self.shape:
            raise ValueError(
                f"the pre-trained embeddings have shape {self.shape} and the table {list(weight.shape)}: "
                "the matrix needs a row for every code from 0 to the largest of the schema"
            )
        with torch.no_grad():
            if self.weight_matrix is not None:
                weight.copy_(self.weight_matrix)
        weight.requires_grad_(self.trainable)


def embedding_matrix(
    vectors: Path | str | pa.Table,
    cardinality: int,
    id_column: str = "item_id",
    vector_column: str = "vector",
) -> Tensor:
    """A matrix for `PretrainedEmbeddingsInitializer`, from vectors computed once in advance (of texts, images).

    Parameters
    ----------
    vectors : Path, str or pyarrow.Table
        A table, or the parquet file of one, with a row an item.
    cardinality : int
        Rows of the result: the largest code + 1 (`Feature.cardinality`).
    id_column : str
        The items' codes, as the features have them.
    vector_column : str
        Lists of numbers, all of one length. A row without a list (null) is left out.

    Returns
    -------
    Tensor [cardinality, width], float32
        Zero for codes that the table does not have.

    Raises
    ------
    UserError
        When a column is missing, vectors differ in length or are not finite, or a code is out of range or occurs
        twice.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    where = "the table" if isinstance(vectors, pa.Table) else str(vectors)
    try:
        table = vectors if isinstance(vectors, pa.Table) else pq.read_table(vectors)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{where} cannot be read as parquet: {error}") from error
    for name in (id_column, vector_column):
        if name not in table.column_names:
            raise UserError(f"{where} has no column {name!r}: it has {', '.join(map(repr, table.column_names))}")
    table = table.select([id_column, vector_column]).filter(pc.is_valid(table.column(vector_column)))
    try:
        ids = np.array(table.column(id_column).cast(pa.int64()).to_numpy())
        sizes = pc.unique(pc.list_value_length(table.column(vector_column))).to_pylist()
        flat = pc.list_flatten(table.column(vector_column)).cast(pa.float32()).to_numpy()
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"{where}: {id_column!r} must hold codes and {vector_column!r} vectors: {error}") from error
    if len(sizes) != 1 or not sizes[0]:
        raise UserError(f"{where}: the vectors of {vector_column!r} must have one length, found {sorted(sizes)[:5]}")
    if not np.isfinite(flat).all():
        raise UserError(f"{where}: {vector_column!r} holds values that are not finite numbers")
    if ids.min() < 1 or ids.max() >= cardinality:
        raise UserError(
            f"{where}: {id_column!r} holds codes from {ids.min()} to {ids.max()}, allowed are 1 to {cardinality - 1}"
        )
    if len(np.unique(ids)) < len(ids):
        raise UserError(f"{where}: {id_column!r} holds a code twice: give each item one vector")
    matrix = torch.zeros(cardinality, sizes[0])
    matrix[torch.from_numpy(ids)] = torch.from_numpy(np.array(flat)).reshape(len(ids), sizes[0])
    return matrix
