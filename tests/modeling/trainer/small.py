"""Small models and sessions with a rule: items go round and round in steps of 1 or 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

import modeling as tr
from modeling.data import Sessions
from modeling.schema import Feature

ITEMS, LIMIT = 12, 8
ITEM = Feature("item_id", "categorical", ITEMS + 3, 3, True)


def model(dropout: float = 0.0, masking: str = "clm", architecture: str = "gpt2", seed: int = 1) -> Any:
    torch.manual_seed(seed)
    inputs = tr.TabularSequenceFeatures([ITEM], LIMIT, d_output=16, masking=masking)
    config = tr.transformer_registry[architecture].build(16, 2, 1, LIMIT, dropout=dropout)
    return config.to_torch_model(inputs, tr.NextItemPredictionTask(weight_tying=True))


def rows(count: int, seed: int = 0, shortest: int = 2) -> list[list[int]]:
    random = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        bounds = [(0, ITEMS), (1, 3), (shortest, LIMIT + 1)]
        start, step, n = (int(torch.randint(*both, (), generator=random)) for both in bounds)
        found.append([3 + (start + step * i) % ITEMS for i in range(n)])
    return found


def sessions(count: int, seed: int = 0) -> Sessions:
    made = rows(count, seed)
    offsets = torch.tensor([0, *map(len, made)]).cumsum(0)
    return Sessions({"item_id": torch.tensor([item for row in made for item in row])}, offsets)


def write(path: Path, count: int, seed: int = 0, row_group: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"item_id": pa.array(rows(count, seed), pa.list_(pa.int64()))})
    pq.write_table(table, path, row_group_size=row_group)
    return path


def arguments(folder: Path | str, **given: Any) -> Any:
    defaults: dict[str, Any] = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 16,
        "learning_rate": 0.01,
        "save_strategy": "no",
        "disable_tqdm": True,
        "predict_top_k": 5,
    }
    return tr.T4RecTrainingArguments(str(folder), **{**defaults, **given})


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert set(one) == set(other)
    return max(float((one[name] - other[name]).abs().max()) for name in one)
