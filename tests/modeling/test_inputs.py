"""From schema and columns to vectors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import modeling as tr
from common.errors import UserError
from modeling.schema import Feature, features_of, max_length_of, schema_to_json

Batch = dict[str, torch.Tensor]


def test_features_follow_the_tags(schema_of: Callable[..., Any]) -> None:
    assert features_of(schema_of(12, 8)) == [
        Feature("item_id", "categorical", 15, 3, True),
        Feature("shop (a.b)", "categorical", 6, 3),
        Feature("price", "continuous"),
    ]
    assert max_length_of(schema_of(12, 8)) == 8


def test_a_schema_is_read_from_pbtxt_and_json(schema_of: Callable[..., Any], features: Path, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(schema_to_json(schema_of(12, 8)))
    expected = features_of(schema_of(12, 8))
    assert features_of(tr.read_schema(tmp_path / "schema.json")) == expected
    assert features_of(tr.read_schema(features / "schema.pbtxt")) == expected
    assert features_of(tr.read_schema(features)) == expected


def test_a_schema_without_reserved_ids_reserves_padding_only(schema_of: Callable[..., Any]) -> None:
    schema = schema_of(12, 8, side=False)
    column = schema["item_id"]
    column.properties.pop("reserved_ids")
    assert features_of(schema)[0].reserved == 1


@pytest.mark.parametrize("text", ["feature { name: 3 }", "not a schema"])
def test_a_broken_schema_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.pbtxt"
    path.write_text(text)
    with pytest.raises(UserError, match=r"schema\.pbtxt is not a Merlin schema"):
        tr.read_schema(path)


def test_schemas_that_cannot_be_used_are_told(schema_of: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exactly one column as item_id"):
        features_of(schema_of(12, 8, item_tag=False))
    schema = schema_of(12, 8)
    schema["shop (a.b)"].properties.pop("domain")
    with pytest.raises(UserError, match=r"'shop \(a\.b\)'.*domain"):
        features_of(schema)
    with pytest.raises(UserError, match="does not exist"):
        tr.read_schema(tmp_path / "schema.pbtxt")


def test_from_schema_takes_all_columns(schema_of: Callable[..., Any]) -> None:
    inputs = tr.TabularSequenceFeatures.from_schema(
        schema_of(12, 8), max_sequence_length=6, continuous_projection=5, d_output=10, masking="mlm",
        mlm_probability=0.3, embedding_dims={"item_id": 7}, embedding_dim_default=3,
    )  # fmt: skip
    assert inputs.feature_names == ["item_id", "shop (a.b)", "price"]
    assert inputs.item_table.weight.shape == (15, 7)
    assert inputs.projection.layers[0].in_features == 7 + 3 + 5
    assert inputs.output_dim == 10
    assert inputs.masking.mlm_probability == 0.3
    assert inputs.max_sequence_length == 6
    assert tr.TabularSequenceFeatures.from_schema(schema_of(12, 8)).max_sequence_length == 8
    with pytest.raises(TypeError, match="no_such"):
        tr.TabularSequenceFeatures.from_schema(schema_of(12, 8), no_such=1)


def test_inferred_sizes_grow_with_the_fourth_root(schema_of: Callable[..., Any]) -> None:
    inputs = tr.TabularSequenceFeatures.from_schema(schema_of(78, 8), infer_embedding_sizes=True)
    assert inputs.item_table.weight.shape == (81, 6)  # 2 * 81 ** 0.25


def test_contradictions_are_refused() -> None:
    item = [Feature("item_id", "categorical", 9, 3, True)]
    for arguments, message in [
        ({"d_output": 4, "projection": tr.MLPBlock([4])}, "not both"),
        ({"aggregation": "sum of all"}, "aggregation"),
        ({"post": "batch-norm"}, "post"),
        ({"masking": "no"}, "there is no masking"),
    ]:
        with pytest.raises(ValueError, match=message):
            tr.TabularSequenceFeatures(item, 5, **arguments)
    with pytest.raises(ValueError, match="at least 2"):
        tr.TabularSequenceFeatures(item, 1)
    two = [*item, Feature("brand", "categorical", 5, 3)]
    with pytest.raises(ValueError, match="equal width"):
        tr.TabularSequenceFeatures(two, 5, aggregation="element-wise-sum", embedding_dims={"brand": 3})
    with pytest.raises(ValueError, match="vectors of width 16, its input has 64"):
        tr.SequentialBlock(tr.TabularSequenceFeatures(item, 5), tr.TransformerBlock(tr.GPT2Config.build(16, 2, 1, 5)))


def test_element_wise_sum_adds() -> None:
    known = [Feature("item_id", "categorical", 9, 3, True), Feature("brand", "categorical", 5, 3)]
    inputs = tr.TabularSequenceFeatures(known, 5, aggregation="element-wise-sum", embedding_dim_default=4)
    columns = {"item_id": torch.tensor([[4]]), "brand": torch.tensor([[3]])}
    tables = [table.weight for table in inputs.tables.values()]
    torch.testing.assert_close(inputs.embed(columns)[0, 0], tables[0][4] + tables[1][3])


def test_padding_is_zero_and_stays_zero(make: Callable[..., Any], batch: Batch) -> None:
    model = make("gpt2", "clm").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        model(batch, training=True)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    for table in model.inputs.tables.values():
        assert table.weight[0].eq(0).all()
        assert table.weight[3:].ne(0).any(1).all()


def test_a_missing_number_counts_as_zero(make: Callable[..., Any], batch: Batch) -> None:
    model = make("gpt2", "clm")
    price = batch["price"].clone()
    price[0, 2] = float("nan")
    zero = price.nan_to_num(0.0)
    with torch.no_grad():
        assert torch.equal(model({**batch, "price": price})[:, 3:], model({**batch, "price": zero})[:, 3:])


def test_every_side_feature_is_used(make: Callable[..., Any], batch: Batch) -> None:
    model = make("xlnet", "mlm")
    with torch.no_grad():
        before = model(batch)[0, 3:]
        for name in ("keys", "page 1 (main.category)", "price"):
            column = batch[name].clone()
            column[0, 3] = 3 if column[0, 3] != 3 else 4
            assert (model({**batch, name: column})[0, 3:] - before).abs().max() > 1e-3, name


def test_a_missing_column_is_named(make: Callable[..., Any], batch: Batch) -> None:
    del batch["keys"]
    with pytest.raises(ValueError, match="lacks the feature 'keys'"):
        make("gpt2", "clm")(batch)


def test_the_head_scores_no_reserved_id_and_gives_it_no_gradient(make: Callable[..., Any], batch: Batch) -> None:
    model = make("gpt2", "clm")
    with torch.no_grad():
        assert torch.isinf(model(batch)[:, :3]).all()
    unknown = {**batch, "item_id": batch["item_id"].where(batch["item_id"] != 9, 2)}
    result = model(unknown, training=True)
    result["loss"].backward()
    assert model.head.task.bias.grad[:3].eq(0).all()
    assert torch.isfinite(result["loss"])
