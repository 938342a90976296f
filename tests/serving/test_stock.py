"""The stock variant: merlin-systems' own runtime on a real tritonserver answers as the model does offline."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from preprocessing.engine import MerlinDataset, nvtabular, ops
from preprocessing.preprocess import load_workflow, preprocess
from preprocessing.settings import Dataset
from serving.server import TritonServer
from serving.stock import IDS, SCORES, PredictTorchScript, TensorTable, ask_stock, export_stock

MINUTE = 60_000_000_000
ITEMS = ["cup", "mug", "pot", "tea"]
# Sessions that lie between each other; the first that comes is not the first in order.
EVENTS: dict[str, Any] = {
    "session_id": [9, 7, 9, 8, 7, 8, 9],
    "item_id": ["tea", "cup", "pot", "cup", "mug", "new", "cup"],
    "price": [1.0, 2.0, 3.0, 2.0, 4.0, 2.0, 2.0],
    "time": [MINUTE * n for n in range(1, 8)],
}
REQUEST = {
    "columns": [
        {"name": "session_id", "type": "INT64", "role": "session"},
        {"name": "item_id", "type": "BYTES", "role": "item"},
        {"name": "time", "type": "INT64", "role": "time"},
        {"name": "price", "type": "FP64", "role": "feature"},
    ],
    "time": {"unit": "ns", "format": None},
}


class LastItemsNeighbours(torch.nn.Module):
    """Scores of the next codes after the session's last item: 10 * sum of prices, and 1 less for each further place."""

    def forward(self, inputs: dict[str, Tensor], k: int) -> tuple[Tensor, Tensor]:
        items = inputs["item_id"]
        last = items.gather(1, ((items != 0).sum(1) - 1).unsqueeze(1))
        places = torch.arange(k).unsqueeze(0)
        return 10 * inputs["price"].sum(1, keepdim=True) - places.to(torch.float32), last + 1 + places


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.jit.script(LastItemsNeighbours()).save(str(folder / "model.pt"))
    inputs = [{"name": "item_id", "dtype": "int64"}, {"name": "price", "dtype": "float32"}]
    (folder / "model.json").write_text(json.dumps({"inputs": inputs}))
    return folder


def stock_workflow(folder: Path, with_session: bool) -> nvtabular.Workflow:
    """Codes of ITEMS are 3, 4, 5, 6, in that order; unknown items are 2."""
    import pandas as pd

    vocabulary = {"item_id": pd.Series(ITEMS)}
    rows = ["item_id"] >> ops.Categorify(vocabs=vocabulary, out_path=str(folder))
    price = ["price"] >> ops.LambdaOp(lambda column: column.astype("float32"), dtype=np.float32)
    rows = rows + price + ["session_id", "time"]
    grouped = rows >> ops.Groupby("session_id", sort_cols=["time"], aggs={"item_id": "list", "price": "list"})
    lists = grouped[["item_id_list", "price_list"]] >> ops.ListSlice(-2)
    output = lists >> ops.Rename(f=lambda name: name.removesuffix("_list"))
    workflow = nvtabular.Workflow(output + grouped["session_id"] if with_session else output)
    return workflow.fit(MerlinDataset(pd.DataFrame(EVENTS)))


# Session 7: cup, mug; 8: cup, new; 9: tea, pot, cup, of which the last two are kept.
ITEM_AFTER = {7: [5, 6, 7], 8: [3, 4, 5], 9: [4, 5, 6]}
BEST_SCORE = {7: 60.0, 8: 40.0, 9: 50.0}


def test_the_model_travels_beside_the_pickle(tmp_path: Path, model: Path) -> None:
    operator = PredictTorchScript(model / "model.pt", {"item_id": "int64", "price": "float32"}, top_k=2)
    operator.save_artifacts(tmp_path)
    kept = pickle.dumps(operator)
    assert str(model).encode() not in kept, "the path of the machine that exports means nothing elsewhere"
    loaded = pickle.loads(kept)
    loaded.load_artifacts("")
    loaded.load_artifacts(str(tmp_path))
    columns = {"item_id": (np.array([3, 4, 5]), np.array([0, 1, 3])), "price": (np.ones(3), np.array([0, 1, 3]))}
    answer = loaded.transform(None, TensorTable(columns))
    assert answer[IDS].values.tolist() == [[4, 5], [6, 7]]
    assert answer[SCORES].values.tolist() == [[10, 9], [20, 19]]


@pytest.mark.slow
def test_stock_operators_answer(tmp_path: Path, model: Path) -> None:
    repository = tmp_path / "model_repository"
    report = export_stock(stock_workflow(tmp_path, with_session=True), REQUEST, model, repository, top_k=3)
    assert report["inputs"] == ["session_id", "item_id", "time", "price"]
    assert sorted(path.name for path in repository.iterdir()) == ["0_transformworkflowtriton", "nextitem"]
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0) as server:
        answers = [ask_stock(server.addresses[protocol], EVENTS, protocol) for protocol in ("grpc", "http")]
        with pytest.raises(UserError, match="missing column price"):
            ask_stock(server.addresses["grpc"], {name: EVENTS[name] for name in ("session_id", "item_id", "time")})
    for answer in answers:
        assert answer["session_id"].tolist() == [7, 8, 9]
        assert answer[IDS].tolist() == [ITEM_AFTER[session] for session in (7, 8, 9)]
        first = [BEST_SCORE[session] for session in (7, 8, 9)]
        assert answer[SCORES].tolist() == [[best, best - 1, best - 2] for best in first]


def test_without_the_sessions_ids_there_are_two_outputs(tmp_path: Path, model: Path) -> None:
    report = export_stock(
        stock_workflow(tmp_path, with_session=False), REQUEST, model, tmp_path / "repository", top_k=3
    )
    assert report == {
        "ensemble": "nextitem",
        "inputs": ["session_id", "item_id", "time", "price"],
        "outputs": [SCORES, IDS],
    }


def test_what_does_not_fit_is_named(tmp_path: Path, model: Path) -> None:
    workflow = stock_workflow(tmp_path, with_session=True)
    short = {**REQUEST, "columns": REQUEST["columns"][:3]}  # type: ignore[index]
    with pytest.raises(UserError, match="the workflow takes price, which the request does not have"):
        export_stock(workflow, short, model, tmp_path / "repository")
    wider = tmp_path / "wider"
    wider.mkdir()
    (wider / "model.json").write_text('{"inputs": [{"name": "brand", "dtype": "int64"}]}')
    with pytest.raises(UserError, match="the model takes brand, which the workflow does not make"):
        export_stock(workflow, REQUEST, wider, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.slow
def test_our_workflow_answers_too(tmp_path: Path, model: Path) -> None:
    rng = np.random.default_rng(0)
    sessions = np.repeat(np.arange(200), 4)
    columns = {
        "session_id": [f"s-{number:03d}" for number in sessions],
        "item_id": [f"sku-{number}" for number in rng.integers(0, 30, len(sessions))],
        "price": rng.lognormal(1, 1, len(sessions)),
        "time": sessions * 60 * MINUTE + np.tile(np.arange(4), 200) * MINUTE,
    }
    pq.write_table(pa.table(columns), tmp_path / "events.parquet")
    settings = {
        "name": "shop",
        "data_root": tmp_path,
        "events": {
            "files": "events.parquet",
            "session": "session_id",
            "item": "item_id",
            "time": {"column": "time", "unit": "ns"},
        },
        "features": {"item": {"continuous": ["price"]}},
    }
    features = tmp_path / "features"
    preprocess(Dataset.model_validate(settings), features)
    workflow, request = load_workflow(features), json.loads((features / "request.json").read_text())
    repository = tmp_path / "model_repository"
    export_stock(workflow, request, model, repository, top_k=4)
    events = pq.read_table(features / "sample.parquet")
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0) as server:
        answer = ask_stock(server.addresses["grpc"], events.to_pydict())
    offline = workflow.transform(events.to_pandas())
    assert [name.decode() for name in answer["session_id"]] == offline["session_id"].tolist()
    assert answer[IDS][:, 0].tolist() == [int(items[-1]) + 1 for items in offline["item_id"]]
    sums = [10 * float(np.sum(prices)) for prices in offline["price"]]
    np.testing.assert_allclose(answer[SCORES][:, 0], sums, rtol=1e-5, atol=1e-5)
