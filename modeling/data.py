"""Sessions from parquet as flat arrays, and batches of them as padded tensors: no Python object a session.

`modeling.loader` goes over them as Transformers4Rec's data loader does, and `modeling.synthetic` makes them up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from common.days import SPLIT_WINDOWS, window_files
from common.errors import UserError
from modeling.schema import Feature

# Batches are made from windows of this many: sessions of like length come together, the order stays random.
_BUCKET_BATCHES = 50
_ELSEWHERE = {
    "tabular_sequence_testing_data": "modeling.synthetic",
    "tabular_testing_data": "modeling.synthetic",
    "DataLoader": "modeling.loader",
    "EmbeddingOperator": "modeling.loader",
    "MerlinDataLoader": "modeling.loader",
}


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        from importlib import import_module

        return getattr(import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass
class Sessions:
    """The sessions of one window.

    Attributes
    ----------
    values : dict of Tensor [E], [E, width], [S] or [S, width]
        Each feature's values. Those of events come session behind session; those of sessions one a session. int64
        codes, float32 numbers.
    offsets : Tensor [S + 1], int64
        Session s owns ``values[name][offsets[s]:offsets[s + 1]]``.
    whole : frozenset of str
        The features with a value a session.
    """

    values: dict[str, Tensor]
    offsets: Tensor
    whole: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Events of each session [S]."""
        return self.offsets.diff()

    def where(self, kept: Tensor) -> Sessions:
        """The sessions for which `kept` [S] is true, in their order."""
        n = self.lengths[kept]
        sessions, events = kept.nonzero()[:, 0], kept.repeat_interleave(self.lengths).nonzero()[:, 0]
        values = {
            name: flat.index_select(0, sessions if name in self.whole else events) for name, flat in self.values.items()
        }
        return Sessions(values, torch.cat([n.new_zeros(1), n.cumsum(0)]), self.whole)

    def padded(self, chosen: Tensor, limit: int) -> dict[str, Tensor]:
        """Some sessions as right-padded columns.

        Parameters
        ----------
        chosen : Tensor [B], int64
            Which sessions.
        limit : int
            Their last `limit` events are kept; L is the longest of what is left.

        Returns
        -------
        dict of Tensor
            [B, L] or [B, L, width] for features of events, [B] or [B, width] for those of sessions.
        """
        end = self.offsets[chosen + 1]
        n = (end - self.offsets[chosen]).clamp(max=limit)
        width = int(n.max()) if len(n) else 0
        position = torch.arange(width)
        index = (end - n)[:, None] + position
        padding = position >= n[:, None] if len(n) and int(n.min()) < width else None
        if padding is not None:
            index.masked_fill_(padding, 0)
        columns = {}
        for name, flat in self.values.items():
            if name in self.whole:
                columns[name] = flat.index_select(0, chosen)
                continue
            # Several times as fast as flat[index].
            column = flat.index_select(0, index.view(-1)).view(*index.shape, *flat.shape[1:])
            if padding is not None:
                column.masked_fill_(padding[(..., *[None] * (flat.dim() - 1))], 0)
            columns[name] = column
        return columns

    def batches(
        self, batch_size: int, limit: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """All sessions once.

        Parameters
        ----------
        batch_size : int
            Sessions a batch; the last may have fewer.
        limit : int
            Most recent events kept.
        generator : torch.Generator, optional
            Shuffles; without it the sessions come by length, for evaluation.

        Yields
        ------
        Tensor [B]
            Which sessions.
        dict of Tensor
            Their columns, as `padded` makes them.
        """
        n = self.lengths.clamp(max=limit)
        if generator is None:
            order = torch.sort(n, stable=True).indices
            chunks = list(order.split(batch_size))
        else:
            order = torch.randperm(len(self), generator=generator)
            windows = order.split(batch_size * _BUCKET_BATCHES)
            chunks = [c for w in windows for c in w[torch.sort(n[w], stable=True).indices].split(batch_size)]
            chunks = [chunks[i] for i in torch.randperm(len(chunks), generator=generator).tolist()]
        for chosen in chunks:
            yield chosen, self.padded(chosen, limit)


def read_sessions(folder: Path | str, window: str, features: Sequence[Feature]) -> Sessions:
    """Read one window of a features folder.

    Parameters
    ----------
    folder : Path or str
        The features folder.
    window : str
        ``"train"``, ``"valid"``, ``"test"``, or days: see `common.days.days_in`.
    features : sequence of Feature
        The columns to read.

    Raises
    ------
    UserError
        When the window is missing or empty, a day was altered or made by other features, a column is missing or of
        another kind than the schema says, lists of a session differ in length, or a code is outside of its domain.
    """
    parts = [read_file(file, features) for file in window_files(folder, window)]
    if not any(map(len, parts)):
        wider = "widen the window of the split" if window in SPLIT_WINDOWS else "name more days"
        raise UserError(f"{Path(folder) / window} holds no sessions: {wider}")
    return joined(parts)


def joined(parts: Sequence[Sessions]) -> Sessions:
    """Sessions of the same features, one behind another."""
    values = {}
    for name in parts[0].values:
        tensors = [part.values[name] for part in parts]
        if name in parts[0].whole and tensors[0].dim() == 2:  # several codes a session, as many as the file has
            width = max(tensor.shape[1] for tensor in tensors)
            tensors = [torch.nn.functional.pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors]
        values[name] = torch.cat(tensors)
    n = torch.cat([part.lengths for part in parts])
    return Sessions(values, torch.cat([n.new_zeros(1), n.cumsum(0)]), parts[0].whole)


def read_file(file: Path | str, features: Sequence[Feature]) -> Sessions:
    """Read one parquet file; see `sessions_of`."""
    try:
        parquet = pq.ParquetFile(file)
        missing = [f.name for f in features if f.name not in parquet.schema_arrow.names]
        if missing:
            raise UserError(f"{file} has no column {missing[0]!r}, which its schema names")
        table = parquet.read(columns=[f.name for f in features])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as parquet: {error}") from error
    return sessions_of(table, features, str(file))


def sessions_of(table: pa.Table, features: Sequence[Feature], where: str = "the table") -> Sessions:
    """Sessions from a table with a row a session.

    Features of events are lists, vectors of events lists of lists; features of sessions are single values, vectors of
    sessions lists. Without any feature of events, every row counts as a session of one event.

    Parameters
    ----------
    table : pyarrow.Table
        The rows.
    features : sequence of Feature
        The columns to take.
    where : str
        What the table is called in errors.

    Raises
    ------
    UserError
        As `read_sessions`.
    """
    values: dict[str, Tensor] = {}
    n: Tensor | None = None
    for feature in features:
        if feature.name not in table.column_names:
            raise UserError(f"{where} has no column {feature.name!r}, which its schema names")
        column = table.column(feature.name)
        place = f"column {feature.name!r} of {where}"
        if not feature.sequence:
            values[feature.name] = _of_sessions(column, feature, place)
            continue
        if not _is_list(column.type):
            raise UserError(f"{place} is {column.type}, not a list: each row must be a session")
        if column.null_count:
            raise UserError(f"{place} has empty rows (null): each must be a list")
        own = _tensor(pc.list_value_length(column), pa.int64(), place)
        if n is not None and not torch.equal(n, own):
            row = int((n != own).nonzero()[0])
            raise UserError(f"{place}: the list of row {row} is not as long as those of the other columns")
        n = own
        values[feature.name] = _values(pc.list_flatten(column), feature, place)
    if n is None:
        n = torch.ones(table.num_rows, dtype=torch.long)
    whole = frozenset(feature.name for feature in features if not feature.sequence)
    return Sessions(values, torch.cat([n.new_zeros(1), n.cumsum(0)]), whole)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _of_sessions(column: pa.ChunkedArray, feature: Feature, where: str) -> Tensor:
    if feature.kind == "embedding" or not _is_list(column.type):
        return _values(column, feature, where)
    if feature.kind == "continuous":
        raise UserError(f"{where} is {column.type}, its schema says one number a row")
    # Several codes a session: padded with 0 to the longest.
    if column.null_count:
        raise UserError(f"{where} has empty rows (null): each must be a list")
    n = _tensor(pc.list_value_length(column), pa.int64(), where)
    codes = _values(pc.list_flatten(column), feature, where)
    padded = torch.zeros(len(n), int(n.max()) if len(n) else 0, dtype=torch.long)
    padded[torch.arange(padded.shape[1]) < n[:, None]] = codes
    return padded


def _values(flat: pa.ChunkedArray, feature: Feature, where: str) -> Tensor:
    if feature.kind == "embedding":
        return _vectors(flat, feature, where)
    if feature.kind == "continuous":
        return _tensor(flat, pa.float32(), where)
    if flat.null_count:
        raise UserError(f"{where} holds empty values (null): codes must be encoded, 1 stands for null")
    codes = _tensor(flat, pa.int64(), where)
    if len(codes) and (int(codes.min()) < 1 or int(codes.max()) >= feature.cardinality):
        raise UserError(
            f"{where} holds codes from {int(codes.min())} to {int(codes.max())}, "
            f"its schema allows 1 to {feature.cardinality - 1}"
        )
    return codes


def _vectors(flat: pa.ChunkedArray, feature: Feature, where: str) -> Tensor:
    """Lists of numbers as a matrix; a missing list (null) becomes zeros."""
    if not _is_list(flat.type):
        raise UserError(f"{where} is {flat.type} where vectors must be: give lists of {feature.width} numbers")
    present = torch.from_numpy(np.array(flat.is_valid().to_numpy()))
    sizes = _tensor(pc.fill_null(pc.list_value_length(flat), feature.width), pa.int64(), where)
    wrong = sizes != feature.width
    if bool(wrong.any()):
        raise UserError(f"{where} holds a vector of {int(sizes[wrong][0])} numbers, its schema says {feature.width}")
    matrix = torch.zeros(len(flat), feature.width)
    numbers = _tensor(pc.list_flatten(flat.filter(flat.is_valid())), pa.float32(), where)
    matrix[present] = numbers.reshape(-1, feature.width)
    return matrix


def _tensor(array: pa.ChunkedArray, kind: pa.DataType, where: str) -> Tensor:
    try:
        numpy = array.cast(kind).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{where} is not {kind}: {error}") from error
    return torch.from_numpy(numpy if numpy.flags.writeable else numpy.copy())  # Arrow's own memory is read-only
