"""Sessions from parquet as flat arrays, and batches of them as padded tensors: no Python object a session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from common.errors import UserError
from modeling.schema import Feature

# Batches are made from windows of this many: sessions of like length come together, the order stays random.
_BUCKET_BATCHES = 50


@dataclass
class Sessions:
    """The sessions of one window.

    Attributes
    ----------
    values : dict of Tensor [E]
        Each feature's values, session behind session: int64 codes, float32 numbers.
    offsets : Tensor [S + 1], int64
        Session s owns ``values[name][offsets[s]:offsets[s + 1]]``.
    """

    values: dict[str, Tensor]
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Events of each session [S]."""
        return self.offsets.diff()

    def padded(self, chosen: Tensor, limit: int) -> dict[str, Tensor]:
        """Some sessions as right-padded columns [len(chosen), L].

        Parameters
        ----------
        chosen : Tensor [B], int64
            Which sessions.
        limit : int
            Their last `limit` events are kept; L is the longest of what is left.
        """
        end = self.offsets[chosen + 1]
        n = (end - self.offsets[chosen]).clamp(max=limit)
        width = int(n.max()) if len(n) else 0
        position = torch.arange(width)
        real = position < n[:, None]
        index = ((end - n)[:, None] + position).masked_fill(~real, 0)
        return {name: flat[index].masked_fill(~real, 0) for name, flat in self.values.items()}

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
        dict of Tensor [B, L]
            Their columns.
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
        ``"train"``, ``"valid"`` or ``"test"``.
    features : sequence of Feature
        The columns to read.

    Raises
    ------
    UserError
        When the window is missing or empty, a column is missing or no list, lists of a session differ in
        length, or a code is outside of its domain.
    """
    path = Path(folder) / window
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise UserError(f"{path} holds no parquet files: run 'nextitem preprocess' first")
    parts = [_read_file(file, features) for file in files]
    values = {f.name: torch.cat([part[0][f.name] for part in parts]) for f in features}
    n = torch.cat([part[1] for part in parts])
    if not len(n):
        raise UserError(f"{path} holds no sessions: widen the window of the split")
    return Sessions(values, torch.cat([n.new_zeros(1), n.cumsum(0)]))


def _read_file(file: Path, features: Sequence[Feature]) -> tuple[dict[str, Tensor], Tensor]:
    try:
        parquet = pq.ParquetFile(file)
        missing = [f.name for f in features if f.name not in parquet.schema_arrow.names]
        if missing:
            raise UserError(f"{file} has no column {missing[0]!r}, which its schema names")
        table = parquet.read(columns=[f.name for f in features])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as parquet: {error}") from error
    values: dict[str, Tensor] = {}
    n: Tensor | None = None
    for feature in features:
        column = table.column(feature.name)
        where = f"column {feature.name!r} of {file}"
        kind = column.type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            raise UserError(f"{where} is {kind}, not a list: each row must be a session")
        if column.null_count:
            raise UserError(f"{where} has empty rows (null): each must be a list")
        own = _tensor(pc.list_value_length(column), pa.int64(), where)
        if n is not None and not torch.equal(n, own):
            row = int((n != own).nonzero()[0])
            raise UserError(f"{where}: the list of row {row} is not as long as those of the other columns")
        n = own
        values[feature.name] = _values(pc.list_flatten(column), feature, where)
    assert n is not None
    return values, n


def _values(flat: pa.ChunkedArray, feature: Feature, where: str) -> Tensor:
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


def _tensor(array: pa.ChunkedArray, kind: pa.DataType, where: str) -> Tensor:
    try:
        numpy = array.cast(kind).to_numpy()
    except pa.ArrowInvalid as error:
        raise UserError(f"{where} is not {kind}: {error}") from error
    return torch.from_numpy(np.array(numpy))  # a copy: Arrow's memory is read-only
