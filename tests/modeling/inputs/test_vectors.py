"""Numbers, soft embeddings, and vectors that were computed elsewhere."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from common.errors import UserError
from modeling.inputs.continuous import ContinuousFeatures, SoftEmbedding, SoftEmbeddingFeatures
from modeling.inputs.initializers import embedding_matrix
from modeling.inputs.pretrained import PretrainedEmbeddingFeatures
from modeling.schema import Feature
from modeling.serialization import describe, restore

TEXT = Feature("text", "embedding", width=2)
IMAGE = Feature("image", "embedding", width=3)


def test_numbers_become_vectors_of_one_component() -> None:
    found = ContinuousFeatures(["a", "b"])({"a": torch.tensor([[1, 2]]), "b": torch.tensor([float("nan")])})
    assert found["a"].tolist() == [[[1.0], [2.0]]]
    assert found["b"].tolist() == [[0.0]], "missing counts as 0"
    assert ContinuousFeatures(["a"]).double()({"a": torch.tensor([1.0])})["a"].dtype == torch.float64


def test_a_soft_embedding_is_a_mean_weighted_by_a_softmax() -> None:
    torch.manual_seed(0)
    soft = SoftEmbedding(3, 2).double()
    with torch.no_grad():
        soft.projection_layer.weight.copy_(torch.tensor([[1.0], [0.0], [-1.0]]))
        soft.projection_layer.bias.zero_()
        soft.embedding_table.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]))
    e = torch.e
    total = e**2 + 1 + e**-2  # softmax of 2, 0, -2
    expected = torch.tensor([(e**2 + 5 * e**-2) / total, (1 + 5 * e**-2) / total], dtype=torch.double)
    torch.testing.assert_close(soft(torch.tensor([[2.0]]).double())[0, 0], expected)
    torch.testing.assert_close(soft(torch.zeros(1).double()), torch.tensor([[2.0, 2.0]]).double())


def test_soft_embeddings_by_feature() -> None:
    features = [Feature("a", "continuous"), Feature("b", "continuous", sequence=False)]
    soft = SoftEmbeddingFeatures.from_schema(
        features, soft_embedding_cardinalities={"a": 4}, soft_embedding_dims={"b": 5}
    )
    assert soft.widths == {"a": 8, "b": 5}
    assert {name: table.embedding_table.num_embeddings for name, table in soft.embedding_tables.items()} == {
        "f_a": 4, "f_b": 10,
    }  # fmt: skip
    columns = {"a": torch.randn(2, 3), "b": torch.randn(2)}
    found = soft(columns)
    assert found["a"].shape == (2, 3, 8)
    assert found["b"].shape == (2, 5)
    assert found["a"].mean(-1).abs().max() < 1e-6, "layer norm is on by default"
    plain = SoftEmbeddingFeatures.from_schema(features, layer_norm=False)
    assert plain(columns)["a"].mean(-1).abs().max() > 1e-4
    again = restore(describe(soft))
    again.load_state_dict(soft.state_dict())
    assert torch.equal(again(columns)["b"], found["b"])


def test_vectors_pass_through_or_are_projected() -> None:
    columns = {"text": torch.randn(2, 4, 2), "image": torch.randn(2, 3)}
    plain = PretrainedEmbeddingFeatures([TEXT, IMAGE])
    assert torch.equal(plain(columns)["text"], columns["text"])
    assert PretrainedEmbeddingFeatures([TEXT, IMAGE], 5).widths == {"text": 5, "image": 5}
    some = PretrainedEmbeddingFeatures([TEXT, IMAGE], {"image": 5}, normalizer="layer-norm")
    found = some(columns)
    assert found["text"].shape == (2, 4, 2)
    assert found["image"].shape == (2, 5)
    assert found["image"].mean(-1).abs().max() < 1e-6
    again = restore(describe(some))
    again.load_state_dict(some.state_dict())
    assert torch.equal(again(columns)["image"], found["image"])


@pytest.mark.parametrize(
    ("combiner", "expected"),
    [("mean", [-2.0, 3.0]), ("sum", [-4.0, 6.0]), ("max", [-1.0, 4.0]), ("min", [-3.0, 2.0])],
)
def test_sequences_are_pooled_without_padding(combiner: str, expected: list[float]) -> None:
    pooled = PretrainedEmbeddingFeatures([TEXT], sequence_combiner=combiner)
    events = torch.tensor([[-1.0, 2.0], [-3.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    nothing = torch.zeros(4, 2)
    found = pooled({"text": torch.stack([events, nothing])})["text"]
    assert found.tolist() == [expected, [0.0, 0.0]]


def test_pooling_ignores_padding_behind_a_projection_and_a_norm_too() -> None:
    torch.manual_seed(0)
    for combiner in ("mean", "sum", "max", "min"):
        pooled = PretrainedEmbeddingFeatures([TEXT], 6, combiner, "layer-norm").double()
        events = torch.randn(3, 4, 2).double()
        padded = torch.cat([events, torch.zeros(3, 5, 2).double()], dim=1)
        torch.testing.assert_close(pooled({"text": padded})["text"], pooled({"text": events})["text"])


def test_a_module_may_pool() -> None:
    class Last(torch.nn.Module):
        def forward(self, vectors: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
            return vectors[torch.arange(len(vectors)), real.sum(1) - 1]

    class Total(torch.nn.Module):
        def forward(self, vectors: torch.Tensor) -> torch.Tensor:
            return vectors.sum(1)

    column = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]])
    assert PretrainedEmbeddingFeatures([TEXT], sequence_combiner=Last())({"text": column})["text"].tolist() == [[3, 4]]
    assert PretrainedEmbeddingFeatures([TEXT], sequence_combiner=Total())({"text": column})["text"].tolist() == [[4, 6]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence_combiner": "median"}, "sequence_combiner"),
        ({"normalizer": "batch-norm"}, "normalizer"),
        ({"pretrained_output_dims": {"video": 3}}, "'video'"),
        ({"features": [Feature("price", "continuous")]}, "'price' is no vector"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainedEmbeddingFeatures(**{"features": [TEXT], **arguments})
    with pytest.raises(ValueError, match="width 5, expected 2"):
        PretrainedEmbeddingFeatures([TEXT])({"text": torch.ones(1, 2, 5)})


def test_a_matrix_is_made_from_a_table_of_vectors(tmp_path: Path) -> None:
    table = pa.table({"item_id": [5, 3, 4], "vector": pa.array([[1.0, 2.0], [3.0, 4.0], None])})
    pq.write_table(table, tmp_path / "vectors.parquet")
    for given in (table, tmp_path / "vectors.parquet"):
        found = embedding_matrix(given, 7)
        assert found.tolist() == [[0, 0], [0, 0], [0, 0], [3, 4], [0, 0], [1, 2], [0, 0]]
    fixed = table.set_column(1, "text", pa.array([[1.0, 2.0], [3.0, 4.0], None], pa.list_(pa.float64(), 2)))
    assert embedding_matrix(fixed, 7, vector_column="text")[5].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        ([1, 1], [[1.0], [2.0]], "twice"),
        ([1, 7], [[1.0], [2.0]], "codes from 1 to 7, allowed are 1 to 6"),
        ([0, 1], [[1.0], [2.0]], "codes from 0 to 1"),
        ([1, 2], [[1.0], [2.0, 3.0]], "one length"),
        ([1, 2], [[1.0], [float("inf")]], "finite"),
        (["a", "b"], [[1.0], [2.0]], "'item_id' must hold codes"),
        ([1], [None], "one length"),
    ],
)
def test_tables_that_give_no_matrix_are_told(ids: list[Any], vectors: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        embedding_matrix(pa.table({"item_id": ids, "vector": pa.array(vectors, pa.list_(pa.float32()))}), 7)
    with pytest.raises(UserError, match="no column 'vector'"):
        embedding_matrix(pa.table({"item_id": ids}), 7)
