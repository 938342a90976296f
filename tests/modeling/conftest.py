"""A features folder written to the contract, and models small and loud enough to betray every leak."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from common.artefacts import new_folder
from modeling.backbones.objectives import SUPPORTED
from modeling.schema import Feature, _merlin

CELLS = [(architecture, masking) for architecture, objectives in SUPPORTED.items() for masking in objectives]
FEATURES = [
    Feature("item_id", "categorical", 30, 3, True),
    Feature("keys", "categorical", 7, 3),  # the name of a method of ModuleDict
    Feature("page 1 (main.category)", "categorical", 9, 3),
    Feature("price", "continuous"),
]
LIMIT = 8


@pytest.fixture(params=CELLS, ids="-".join)
def cell(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def loud_model(cell: tuple[str, str]) -> Any:
    """Untrained, in double precision and evaluation mode, with weights large enough that everything shows."""
    return make_model(*cell).double()


def make_model(architecture: str, masking: str, features: Sequence[Feature] = FEATURES) -> Any:
    import modeling as tr

    torch.manual_seed(7)
    inputs = tr.TabularSequenceFeatures(
        features, LIMIT, continuous_projection=4, d_output=16, masking=masking, item_embedding_std=1, embedding_std=1
    )
    config = tr.transformer_registry[architecture].build(16, 2, 2, LIMIT, initializer_range=0.3, dropout=0.1)
    return config.to_torch_model(inputs, tr.NextItemPredictionTask(weight_tying=True, output_bias=True)).eval()


@pytest.fixture
def make() -> Callable[..., Any]:
    return make_model


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Sessions of 7, 1, 3, 5 and 2 events."""
    return random_batch([7, 1, 3, 5, 2])


def random_batch(lengths: Sequence[int], width: int | None = None, seed: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), width or max(lengths))
    padding = torch.arange(shape[1]) >= torch.tensor(lengths)[:, None]
    columns = {
        f.name: torch.randn(shape, generator=generator)
        if f.kind == "continuous"
        else torch.randint(f.reserved, f.cardinality, shape, generator=generator)
        for f in FEATURES
    }
    return {name: column.masked_fill(padding, 0) for name, column in columns.items()}


@pytest.fixture
def batch_of() -> Callable[..., dict[str, torch.Tensor]]:
    return random_batch


def merlin_schema(items: int, limit: int, side: bool = True, item_tag: bool = True) -> Any:
    merlin = _merlin()
    tags = merlin.Tags
    column = merlin.ColumnSchema
    count = {"value_count": {"min": 1, "max": limit}}

    def categorical(name: str, largest: int, *more: Any) -> Any:
        properties = {**count, "domain": {"min": 0, "max": largest}, "reserved_ids": 3}
        return column(
            name, dtype=np.int64, is_list=True, is_ragged=True, tags=[tags.CATEGORICAL, *more], properties=properties
        )

    columns = [
        column("session_id", dtype=np.int64, tags=[tags.SESSION_ID]),
        categorical("item_id", items + 2, *([tags.ITEM_ID, tags.ITEM] if item_tag else [])),
    ]
    if side:
        columns.append(categorical("shop (a.b)", 5))
        columns.append(
            column("price", dtype=np.float32, is_list=True, is_ragged=True, tags=[tags.CONTINUOUS], properties=count)
        )
    return merlin.Schema(columns)


def write_features(
    path: Path, windows: dict[str, list[list[int]]], items: int, limit: int = LIMIT, schema: Any = None
) -> Path:
    """A features folder; side features are functions of the item, so that nothing else has to be given."""
    schema = schema if schema is not None else merlin_schema(items, limit)
    with new_folder(path, "features", {}) as folder:
        metadata = _merlin().io.tensorflow_metadata.TensorflowMetadata
        metadata.from_merlin_schema(schema).to_proto_text_file(str(folder.path), "schema.pbtxt")
        for window, sessions in windows.items():
            (folder.path / window).mkdir()
            table = {
                "session_id": pa.array(range(len(sessions)), pa.int64()),
                "item_id": pa.array(sessions, pa.list_(pa.int64())),
                "shop (a.b)": pa.array([[3 + i % 3 for i in s] for s in sessions], pa.list_(pa.int64())),
                "price": pa.array([[i / 10 for i in s] for s in sessions], pa.list_(pa.float32())),
            }
            table = {name: column for name, column in table.items() if name in schema.column_names}
            pq.write_table(pa.table(table), folder.path / window / "part-0.parquet")
    return path


def arithmetic_sessions(count: int, items: int, steps: int, seed: int) -> list[list[int]]:
    """Sessions that go through the catalogue in steps of 1 to `steps`, round and round."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        start, step, n = random.integers(items), random.integers(1, steps + 1), random.integers(4, LIMIT + 1)
        found.append([int(3 + (start + step * i) % items) for i in range(n)])
    return found


@pytest.fixture
def sessions_of() -> Callable[..., Any]:
    from modeling.data import Sessions

    def make_sessions(count: int, items: int, steps: int, seed: int) -> Sessions:
        rows = arithmetic_sessions(count, items, steps, seed)
        offsets = torch.tensor([0] + [len(row) for row in rows]).cumsum(0)
        return Sessions({"item_id": torch.tensor([item for row in rows for item in row])}, offsets)

    return make_sessions


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 arithmetic sessions over 12 items."""
    windows = {
        w: arithmetic_sessions(n, 12, 3, s) for w, n, s in (("train", 600, 0), ("valid", 60, 1), ("test", 80, 2))
    }
    return write_features(tmp_path_factory.mktemp("data") / "features", windows, 12)


@pytest.fixture
def write() -> Callable[..., Path]:
    return write_features


@pytest.fixture
def schema_of() -> Callable[..., Any]:
    return merlin_schema
