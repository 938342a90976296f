"""Batches from parquet files, in the words of Transformers4Rec's data loader."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from common.errors import UserError
from modeling.data import Sessions, joined, read_file, sessions_of
from modeling.schema import Feature, features_of, target_names

Batch = dict[str, Tensor]


class EmbeddingOperator:
    """Looks vectors up while batches are made: a transform of the loader, for tables too large for the data.

    Parameters
    ----------
    embeddings : Tensor or numpy array [rows, width]
        Row i is the vector of code i; `embedding_matrix` makes one. Code 0, padding, always gets zeros.
    lookup_key : str
        The column of codes.
    embedding_name : str
        The column of vectors that is added.
    """

    def __init__(self, embeddings: Any, lookup_key: str = "item_id", embedding_name: str = "embeddings") -> None:
        self.embeddings = torch.as_tensor(embeddings, dtype=torch.float32)
        if self.embeddings.dim() != 2:
            raise ValueError(f"embeddings must be a matrix, not of shape {list(self.embeddings.shape)}")
        self.lookup_key, self.embedding_name = lookup_key, embedding_name

    def __call__(self, columns: Batch) -> Batch:
        """The columns, and the vectors [..., width]."""
        codes = columns[self.lookup_key]
        if codes.numel() and int(codes.max()) >= len(self.embeddings):
            raise UserError(
                f"{self.lookup_key!r} holds the code {int(codes.max())}, "
                f"and there are {len(self.embeddings)} embeddings"
            )
        vectors = self.embeddings[codes].masked_fill((codes == 0)[..., None], 0.0)
        return {**columns, self.embedding_name: vectors}

    def column(self, schema: Any) -> Any:
        """What a schema must say of the vectors."""
        from modeling.schema import ColumnSchema

        codes = schema[self.lookup_key]
        lists = {"is_list": True, "is_ragged": True} if codes.is_list else {}
        width = {"embedding_dim": self.embeddings.shape[1]}
        return ColumnSchema(self.embedding_name, dtype="float32", tags=["embedding"], properties=width, **lists)


class MerlinDataLoader:
    """Goes over sessions in padded batches; each ``for`` is one pass over all of them.

    Yields a dict of columns, or ``(columns, targets)`` where there are targets. The sessions lie in memory as flat
    arrays; a batch is cut from them by one indexing a column.

    Parameters
    ----------
    sessions : Sessions
        What to go over.
    batch_size : int
        Sessions a batch.
    max_sequence_length : int, optional
        Only this many of the most recent events of each session are kept; all, by default.
    shuffle : bool
        Another order in every pass, with sessions of like length together. Otherwise the order of the files.
    drop_last : bool
        Leave out a last batch of fewer sessions.
    targets : sequence of str
        Columns that are targets.
    seed : int
        Of the orders.
    schema : Schema, optional
        Kept for those who ask for it.
    transforms : sequence of callable
        What is done to each batch's columns, in this order, such as `EmbeddingOperator`: dict -> dict.
    """

    def __init__(
        self,
        sessions: Sessions,
        batch_size: int,
        max_sequence_length: int | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        targets: Sequence[str] = (),
        seed: int = 0,
        schema: Any = None,
        transforms: Sequence[Callable[[Batch], Batch]] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.sessions, self.batch_size, self.shuffle, self.drop_last = sessions, batch_size, shuffle, drop_last
        self.max_sequence_length, self.targets, self.schema = max_sequence_length, list(targets), schema
        self.transforms = list(transforms or ())
        self._generator = torch.Generator().manual_seed(seed)

    @classmethod
    def from_schema(
        cls,
        schema: Any,
        paths_or_dataset: Any,
        batch_size: int,
        max_sequence_length: int | None = None,
        continuous_features: Sequence[str] | None = None,
        categorical_features: Sequence[str] | None = None,
        targets: Sequence[str] | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
        features: Sequence[Feature] | None = None,
        transforms: Sequence[Callable[[Batch], Batch]] | None = None,
        **others: Any,
    ) -> MerlinDataLoader:
        """A loader of the columns that a schema tags.

        Parameters
        ----------
        schema : Schema
            Of Merlin or of this library.
        paths_or_dataset : str, Path or list of them, pyarrow.Table, pandas.DataFrame, merlin.io.Dataset or Sessions
            Parquet files, folders of them or patterns; or the data itself.
        batch_size, max_sequence_length, shuffle, drop_last, seed, transforms
            As in the constructor; `shuffle` is True here, as in Transformers4Rec.
        continuous_features, categorical_features : sequence of str, optional
            Only these columns of each kind.
        targets : sequence of str, optional
            Target columns; by default those tagged as target of some kind.
        features : sequence of Feature, optional
            Take these columns instead (those of a model: ``model.inputs.features``).
        **others
            Other arguments of Merlin's loader (``buffer_size``, ``parts_per_chunk`` ...) are accepted and have no
            meaning here.

        Raises
        ------
        UserError
            When files are missing or do not fit the schema.
        """
        chosen = list(features) if features is not None else features_of(schema, item_required=False)
        for kind, names in (("continuous", continuous_features), ("categorical", categorical_features)):
            if names is not None:
                chosen = [feature for feature in chosen if feature.kind != kind or feature.name in names]
        wanted = list(targets) if targets is not None else target_names(schema)
        chosen = [feature for feature in chosen if feature.name not in wanted]
        if any(feature.item and not feature.sequence for feature in chosen):
            # No sequences here: a list holds several codes of one value.
            bags = [feature.sequence and feature.kind == "categorical" for feature in chosen]
            chosen = [replace(f, sequence=False) if bag else f for f, bag in zip(chosen, bags, strict=True)]
        sessions = _read(paths_or_dataset, [*chosen, *(_target(schema, name) for name in wanted)])
        for name in wanted:
            values = sessions.values[name]
            if schema[name].dtype.is_integer and not bool(values.isnan().any()):
                sessions.values[name] = values.long()
        return cls(sessions, batch_size, max_sequence_length, shuffle, drop_last, wanted, seed, schema, transforms)

    @property
    def dataset(self) -> Sessions:
        """The sessions."""
        return self.sessions

    @property
    def output_schema(self) -> Any:
        """The schema with the columns that the transforms add: what the input module is to be made from."""
        from modeling.schema import Schema

        made = [step.column(self.schema) for step in self.transforms if isinstance(step, EmbeddingOperator)]
        return Schema([*self.schema, *made])

    def __len__(self) -> int:
        whole = len(self.sessions) / self.batch_size
        return math.floor(whole) if self.drop_last else math.ceil(whole)

    def __iter__(self) -> Iterator[Any]:
        longest = int(self.sessions.lengths.max()) if len(self.sessions) else 1
        limit = self.max_sequence_length or longest
        if self.shuffle:
            batches = (columns for _, columns in self.sessions.batches(self.batch_size, limit, self._generator))
        else:
            chunks = torch.arange(len(self.sessions)).split(self.batch_size)
            batches = (self.sessions.padded(chunk, limit) for chunk in chunks)
        for columns in batches:
            if self.drop_last and len(next(iter(columns.values()))) < self.batch_size:
                continue
            for transform in self.transforms:
                columns = transform(columns)
            yield self._with_targets(columns) if self.targets else columns

    def _with_targets(self, columns: Batch) -> tuple[Batch, Batch]:
        inputs = {name: column for name, column in columns.items() if name not in self.targets}
        return inputs, {name: columns[name] for name in self.targets}


DataLoader = MerlinDataLoader


def _target(schema: Any, name: str) -> Feature:
    """A target as a feature of numbers: its codes, 0 among them, are no codes of an embedding."""
    if schema is None or name not in schema.column_names:
        raise UserError(f"the schema has no target column {name!r}")
    return Feature(name, "continuous", sequence=bool(schema[name].is_list))


def _read(given: Any, features: Sequence[Feature]) -> Sessions:
    if isinstance(given, Sessions):
        missing = [feature.name for feature in features if feature.name not in given.values]
        if missing:
            raise UserError(f"the sessions have no feature {missing[0]!r}, which the schema names")
        return Sessions({f.name: given.values[f.name] for f in features}, given.offsets, given.whole)
    if hasattr(given, "to_ddf"):  # merlin.io.Dataset
        given = given.to_ddf().compute()
    if isinstance(given, pa.Table):
        return sessions_of(given, features)
    if hasattr(given, "to_parquet") and hasattr(given, "columns"):  # pandas, without importing it
        return sessions_of(pa.Table.from_pandas(given, preserve_index=False), features)
    files: list[Path] = []
    for path in [given] if isinstance(given, str | Path) else list(given):
        files += sorted(Path(path).glob("*.parquet")) if Path(path).is_dir() else _files(path)
    if not files:
        raise UserError(f"{given} holds no parquet files")
    return joined([read_file(file, features) for file in files])


def _files(path: str | Path) -> list[Path]:
    if Path(path).is_file():
        return [Path(path)]
    return [Path(found) for found in sorted(glob(str(path)))]
