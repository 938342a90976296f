"""Embedding tables: sizes, initialisers, combiners, sharing, padding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from modeling.inputs.embedding import EmbeddingFeatures, SequenceEmbeddingFeatures
from modeling.inputs.features import TabularSequenceFeatures
from modeling.inputs.initializers import PretrainedEmbeddingsInitializer
from modeling.inputs.tables import FeatureConfig, TableConfig
from modeling.schema import Feature
from modeling.serialization import describe, restore

ITEM = Feature("item_id", "categorical", 30, 3, True)
BRAND = Feature("brand", "categorical", 9, 1)


def ones(weight: torch.Tensor) -> None:
    torch.nn.init.constant_(weight, 1.0)


def test_sizes_are_given_or_inferred_from_a_schema(schema_of: Callable[..., Any]) -> None:
    schema = schema_of(78, 8)  # 81 ids, and a shop of 6 codes
    features = EmbeddingFeatures.from_schema(schema)
    assert features.widths == {"item_id": 64, "shop (a.b)": 64}
    assert features.item_id == "item_id"
    assert features.item_embedding_table.weight.shape == (81, 64)
    given = EmbeddingFeatures.from_schema(schema, embedding_dims={"item_id": 5}, embedding_dim_default=3)
    assert given.widths == {"item_id": 5, "shop (a.b)": 3}
    inferred = EmbeddingFeatures.from_schema(schema, infer_embedding_sizes=True, embedding_dims={"shop (a.b)": 7})
    assert inferred.widths == {"item_id": 6, "shop (a.b)": 7}  # 2 * 81 ** 0.25
    tripled = EmbeddingFeatures.from_schema(schema, infer_embedding_sizes=True, infer_embedding_sizes_multiplier=3.0)
    assert tripled.widths == {"item_id": 9, "shop (a.b)": 5}  # 3 * 6 ** 0.25 = 4.7
    assert EmbeddingFeatures.from_schema(schema, tags="item_id").feature_names == ["item_id"]
    assert EmbeddingFeatures.from_schema(schema.select_by_name(["price"])) is None
    with pytest.raises(ValueError, match="'shop'; the categorical features are 'item_id', 'shop"):
        EmbeddingFeatures.from_schema(schema, embedding_dims={"shop": 7})


def test_an_item_id_can_be_named(schema_of: Callable[..., Any]) -> None:
    schema = schema_of(12, 8, item_tag=False)
    assert EmbeddingFeatures.from_schema(schema).item_id is None
    assert EmbeddingFeatures.from_schema(schema, item_id="item_id").item_embedding_table.weight.shape == (15, 64)
    with pytest.raises(AttributeError, match="no item id"):
        _ = EmbeddingFeatures.from_schema(schema).item_embedding_table
    with pytest.raises(ValueError, match="'nothing'"):
        EmbeddingFeatures.from_schema(schema, item_id="nothing")


def test_two_item_ids_are_refused(schema_of: Callable[..., Any]) -> None:
    schema = schema_of(12, 8)
    schema["shop (a.b)"] = schema["shop (a.b)"].with_tags(["item_id"])
    with pytest.raises(ValueError, match="exactly one column as item_id"):
        EmbeddingFeatures.from_schema(schema)


def test_the_first_values_are_small_and_normal() -> None:
    torch.manual_seed(0)
    weight = EmbeddingFeatures({"a": FeatureConfig(TableConfig(3000, 20))}).table("a").weight[1:]
    assert weight.mean().item() == pytest.approx(0, abs=0.002)
    assert weight.std().item() == pytest.approx(0.05, rel=0.02)


@pytest.mark.parametrize("kind", [EmbeddingFeatures, SequenceEmbeddingFeatures])
def test_an_initialiser_fills_all_rows_but_the_reserved(kind: type[EmbeddingFeatures]) -> None:
    features = kind.from_schema([ITEM, BRAND], embeddings_initializers={"item_id": ones, "brand": ones})
    assert features.table("item_id").weight[3:].eq(1).all()
    assert features.table("item_id").weight[:3].eq(0).all()
    assert features.table("brand").weight.sum(1).tolist() == [0, *[64] * 8]


@pytest.mark.parametrize(
    ("combiner", "expected"), [("mean", [2.0, 20.0]), ("sum", [6.0, 60.0]), ("sqrtn", [6 / 3**0.5, 60 / 3**0.5])]
)
def test_several_codes_are_combined_without_padding(combiner: str, expected: list[float]) -> None:
    features = EmbeddingFeatures({"a": FeatureConfig(TableConfig(5, 2, combiner=combiner))}).double()
    with torch.no_grad():
        features.table("a").weight[1:] = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [9.0, 9.0]])
    found = features({"a": torch.tensor([[3, 1, 2, 0, 0], [4, 0, 0, 0, 0], [0, 0, 0, 0, 0]])})["a"]
    torch.testing.assert_close(found, torch.tensor([expected, [9.0, 9.0], [0.0, 0.0]]).double())
    assert features({"a": torch.tensor([2, 0])})["a"].tolist() == [[2.0, 20.0], [0.0, 0.0]]


def test_sequences_keep_their_events() -> None:
    config = {"a": FeatureConfig(TableConfig(5, 2)), "user": FeatureConfig(TableConfig(4, 3), sequence=False)}
    features = SequenceEmbeddingFeatures(config)
    table = features.table("a").weight
    found = features({"a": torch.tensor([[3, 1, 0]]), "user": torch.tensor([2])})
    torch.testing.assert_close(found["a"], table[[3, 1, 0]][None])
    torch.testing.assert_close(found["user"], features.table("user").weight[[2]])
    # Several codes an event, and several codes a session.
    bags = features({"a": torch.tensor([[[3, 1], [4, 0]]]), "user": torch.tensor([[1, 3, 0]])})
    torch.testing.assert_close(bags["a"], torch.stack([(table[3] + table[1]) / 2, table[4]])[None])
    torch.testing.assert_close(bags["user"], features.table("user").weight[[1, 3]].mean(0, keepdim=True))


def test_features_of_one_domain_share_a_table() -> None:
    last = Feature("last_bought", "categorical", 30, 3, sequence=False, domain="items")
    item = Feature("item_id", "categorical", 30, 3, True, domain="items")
    other = Feature("shelf", "categorical", 31, 3, domain="items")  # another cardinality: its codes mean others
    features = SequenceEmbeddingFeatures.from_schema([item, last, other], embedding_dim_default=4)
    assert features.table("item_id") is features.table("last_bought")
    assert features.table("shelf") is not features.table("item_id")
    assert sum(p.numel() for p in features.parameters()) == (30 + 31) * 4
    again = restore(describe(features))
    again.load_state_dict(features.state_dict())
    assert again.table("item_id") is again.table("last_bought")
    with pytest.raises(ValueError, match="'item_id', 'last_bought' share a table"):
        SequenceEmbeddingFeatures.from_schema([item, last], embedding_dims={"item_id": 3, "last_bought": 4})
    table = TableConfig(8, 2)
    given = EmbeddingFeatures({"a": FeatureConfig(table), "b": FeatureConfig(table)})
    assert given.table("a") is given.table("b")
    with pytest.raises(ValueError, match="'x' and differ in size"):
        EmbeddingFeatures({n: FeatureConfig(TableConfig(8, d, name="x")) for n, d in (("a", 2), ("b", 3))})


def test_padding_stays_zero_in_training_whatever_the_initialiser_wrote() -> None:
    torch.manual_seed(0)
    features = SequenceEmbeddingFeatures.from_schema([ITEM], embeddings_initializers={"item_id": ones})
    optimizer = torch.optim.AdamW(features.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        features({"item_id": torch.tensor([[5, 2, 0, 0]])})["item_id"].sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    weight = features.table("item_id").weight
    assert weight[0].eq(0).all()
    assert weight[5].ne(1).all()
    assert weight[2].ne(0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocabulary_size": 0, "dim": 2}, "vocabulary_size"),
        ({"vocabulary_size": 2, "dim": -1}, "dim"),
        ({"vocabulary_size": 2, "dim": 2.5}, "dim"),
        ({"vocabulary_size": 2, "dim": 2, "combiner": "max"}, "combiner must be one of mean, sum, sqrtn"),
        ({"vocabulary_size": 2, "dim": 2, "initializer": 3}, "callable"),
    ],
)
def test_tables_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TableConfig(**arguments)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="lacks the feature 'brand'; it has 'item_id'"):
        SequenceEmbeddingFeatures.from_schema([ITEM, BRAND])({"item_id": torch.tensor([[3]])})


def matrix() -> torch.Tensor:
    return torch.arange(30 * 4).reshape(30, 4).float() + 1


def with_matrix(trainable: bool, **arguments: Any) -> TabularSequenceFeatures:
    start = PretrainedEmbeddingsInitializer(matrix(), trainable=trainable)
    return TabularSequenceFeatures([ITEM, BRAND], 6, embeddings_initializers={"item_id": start}, **arguments)


@pytest.mark.parametrize("trainable", [True, False])
def test_given_vectors_are_copied_and_frozen_means_frozen(trainable: bool) -> None:
    torch.manual_seed(0)
    inputs = with_matrix(trainable, aggregation="concat", masking="clm")
    assert inputs.item_table.weight.shape == (30, 4), "the width is the matrix's"
    assert inputs.item_table.weight.requires_grad == trainable
    # Rows 1 and 2 are null and unknown: the matrix gave them vectors.
    torch.testing.assert_close(inputs.item_table.weight.detach(), torch.cat([torch.zeros(1, 4), matrix()[1:]]))
    optimizer = torch.optim.AdamW(inputs.parameters(), lr=0.1, weight_decay=0.5)
    inputs.embed({"item_id": torch.tensor([[5, 0]]), "brand": torch.tensor([[4, 0]])}).square().sum().backward()
    optimizer.step()
    assert inputs.item_table.weight[1:].ne(matrix()[1:]).any() == trainable
    assert inputs.item_table.weight[0].eq(0).all()


@pytest.mark.parametrize("trainable", [True, False])
def test_saved_models_hold_the_vectors_among_their_weights_only(trainable: bool) -> None:
    inputs = with_matrix(trainable)
    described = describe(inputs)
    assert len(str(described)) < 3000
    again = restore(described)
    again.load_state_dict(inputs.state_dict())
    torch.testing.assert_close(again.item_table.weight, inputs.item_table.weight, rtol=0, atol=0)
    assert again.item_table.weight.requires_grad == trainable


def test_a_matrix_that_does_not_fit_is_told() -> None:
    for wrong in (torch.ones(29, 4), torch.ones(31, 4)):
        with pytest.raises(ValueError, match=rf"'item_id': .*shape \[{len(wrong)}, 4\] and the table \[30, 4\]"):
            TabularSequenceFeatures(
                [ITEM], 6, embeddings_initializers={"item_id": PretrainedEmbeddingsInitializer(wrong)}
            )
    with pytest.raises(ValueError, match=r"shape \[30, 4\] and the table \[30, 5\]"):
        with_matrix(False, embedding_dims={"item_id": 5})
    with pytest.raises(ValueError, match="must be a matrix"):
        PretrainedEmbeddingsInitializer(torch.ones(3))
    with pytest.raises(ValueError, match="finite"):
        PretrainedEmbeddingsInitializer([[float("nan")]])
