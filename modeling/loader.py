"""Batches from parquet files, in the words of Transformers4Rec's data loader."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from common.errors import UserError
from modeling.data import Sessions, joined, read_file, sessions_of
from modeling.loading.parts import parquet_files, parts_of
from modeling.loading.stream import BUFFER_SIZE, SessionStream
from modeling.schema import Feature, features_of, target_names

Batch = dict[str, Tensor]
# Files whose columns would take more are streamed, unless the caller says otherwise.
IN_MEMORY_BYTES = 2 * 2**30


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
    arrays; a batch is cut from them by one indexing a column. Or they are streamed from files.

    Parameters
    ----------
    sessions : Sessions or SessionStream
        What to go over. A stream has its own batch size, length, order and seed, and those given here do nothing.
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
        sessions: Sessions | SessionStream,
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
        streamed = schema is not None and isinstance(sessions, SessionStream)
        self._codes = [name for name in self.targets if streamed and schema[name].dtype.is_integer]

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
        in_memory: bool | None = None,
        buffer_size: float | None = None,
        parts_per_chunk: int | None = None,
        reader_kwargs: Mapping[str, Any] | None = None,
        global_size: int | None = None,
        global_rank: int | None = None,
        workers: int = 1,
        pin_memory: bool = False,
        max_events: int | None = None,
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
        in_memory : bool, optional
            False streams from the files, with memory that does not grow with them: see
            `modeling.loading.stream.SessionStream`. By default so do files of more than 2 GiB, and several processes.
        buffer_size : float, optional
            When streaming: sessions that are mixed. A number below 1, Merlin's share of the GPU's memory, is ignored.
        parts_per_chunk : int, optional
            When streaming: row groups that are read side by side; 4 by default.
        reader_kwargs : mapping, optional
            When streaming: ``memory_map``, ``pre_buffer`` or ``buffer_size`` of pyarrow.parquet.ParquetFile; others
            have no meaning here.
        global_size, global_rank : int, optional
            Of several processes, how many there are and which this is: each gets its own sessions.
        workers, pin_memory
            When streaming: as for SessionStream.
        max_events : int, optional
            When streaming: batches of at most so many events, padding counted, instead of `batch_size` sessions.
        **others
            Other arguments of Merlin's loader are accepted and have no meaning here.

        Raises
        ------
        UserError
            When files are missing or do not fit the schema, or what is in memory already is to be streamed.
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
        columns = [*chosen, *(_target(schema, name) for name in wanted)]
        sessions: Sessions | SessionStream | None = None
        several = (global_size or 1) > 1
        if several and in_memory:
            raise UserError("several processes share streamed sessions: leave in_memory=True out")
        if _are_paths(paths_or_dataset) and in_memory is not True:
            parts = parts_of(parquet_files(paths_or_dataset), columns)
            if in_memory is False or several or sum(part.size for part in parts) > IN_MEMORY_BYTES:
                sessions = SessionStream(
                    parts,
                    columns,
                    batch_size if max_events is None else None,
                    max_events=max_events,
                    limit=max_sequence_length,
                    shuffle=shuffle,
                    buffer_size=int(buffer_size) if buffer_size and buffer_size >= 1 else BUFFER_SIZE,
                    open_parts=parts_per_chunk or 4,
                    drop_last=drop_last,
                    seed=seed,
                    workers=workers,
                    pin_memory=pin_memory,
                    rank=global_rank or 0,
                    world_size=global_size or 1,
                    reader={name: value for name, value in (reader_kwargs or {}).items() if name in _READER},
                )
        elif in_memory is False or several:
            raise UserError("in_memory=False and several processes need parquet files: give their paths")
        if max_events is not None and sessions is None:
            raise UserError("max_events is for streamed sessions: give the paths of files, and in_memory=False")
        if sessions is None:
            sessions = _read(paths_or_dataset, columns)
            for name in wanted:
                values = sessions.values[name]
                if schema[name].dtype.is_integer and not bool(values.isnan().any()):
                    sessions.values[name] = values.long()
        return cls(sessions, batch_size, max_sequence_length, shuffle, drop_last, wanted, seed, schema, transforms)

    @property
    def dataset(self) -> Sessions | SessionStream:
        """The sessions, or what streams them."""
        return self.sessions

    @property
    def output_schema(self) -> Any:
        """The schema with the columns that the transforms add: what the input module is to be made from."""
        from modeling.schema import Schema

        made = [step.column(self.schema) for step in self.transforms if isinstance(step, EmbeddingOperator)]
        return Schema([*self.schema, *made])

    def state_dict(self) -> dict[str, Any]:
        """Where a pass over streamed sessions is: `SessionStream.state_dict`."""
        return self._stream().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on there: `SessionStream.load_state_dict`."""
        self._stream().load_state_dict(state)

    def _stream(self) -> SessionStream:
        if isinstance(self.sessions, SessionStream):
            return self.sessions
        raise UserError("only streamed sessions can be resumed: make the loader with in_memory=False")

    def __len__(self) -> int:
        if isinstance(self.sessions, SessionStream):
            return len(self.sessions)
        whole = len(self.sessions) / self.batch_size
        return math.floor(whole) if self.drop_last else math.ceil(whole)

    def __iter__(self) -> Iterator[Any]:
        for columns in self._columns():
            for transform in self.transforms:
                columns = transform(columns)
            yield self._with_targets(columns) if self.targets else columns

    def _columns(self) -> Iterator[Batch]:
        if isinstance(self.sessions, SessionStream):
            for _, columns in self.sessions:
                for name in self._codes:
                    if bool(columns[name].isnan().any()):
                        raise UserError(f"target {name!r} has empty values (null): streamed integers must have none")
                    columns[name] = columns[name].long()
                yield columns
            return
        longest = int(self.sessions.lengths.max()) if len(self.sessions) else 1
        limit = self.max_sequence_length or longest
        if self.shuffle:
            for chosen, columns in self.sessions.batches(self.batch_size, limit, self._generator):
                if len(chosen) == self.batch_size or not self.drop_last:
                    yield columns
            return
        for chunk in torch.arange(len(self.sessions)).split(self.batch_size):
            if len(chunk) == self.batch_size or not self.drop_last:
                yield self.sessions.padded(chunk, limit)

    def _with_targets(self, columns: Batch) -> tuple[Batch, Batch]:
        inputs = {name: column for name, column in columns.items() if name not in self.targets}
        return inputs, {name: columns[name] for name in self.targets}


DataLoader = MerlinDataLoader
_READER = ("memory_map", "pre_buffer", "buffer_size")


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
    return joined([read_file(file, features) for file in parquet_files(given)])


def _are_paths(given: Any) -> bool:
    many = isinstance(given, list | tuple) and all(isinstance(path, str | Path) for path in given)
    return many or isinstance(given, str | Path)
