"""All features of a schema together: rows, sequences, columns of sessions, vectors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from modeling.blocks.mlp import MLPBlock
from modeling.blocks.sequential import SequentialBlock
from modeling.inputs.features import TabularSequenceFeatures
from modeling.inputs.initializers import PretrainedEmbeddingsInitializer
from modeling.inputs.tabular_features import TabularFeatures
from modeling.inputs.transformations import StochasticSwapNoise, TabularDropout
from modeling.masking.causal import CausalLanguageModeling
from modeling.schema import Feature, _merlin
from modeling.serialization import describe, restore
from modeling.synthetic import random_columns

ITEM = Feature("item_id", "categorical", 30, 3, True)
SIDE = [
    Feature("brand", "categorical", 9),
    Feature("country", "categorical", 5, sequence=False),
    Feature("price", "continuous"),
    Feature("age", "continuous", sequence=False),
    Feature("text", "embedding", width=6),
    Feature("profile", "embedding", sequence=False, width=2),
]
ALL = [ITEM, *SIDE]
LENGTHS = [4, 1, 3]
Batch = dict[str, torch.Tensor]


@pytest.fixture
def columns() -> Batch:
    return random_columns(ALL, LENGTHS)


def everything(**arguments: Any) -> TabularSequenceFeatures:
    torch.manual_seed(0)
    options = {"embedding_dim_default": 4, "continuous_projection": [5, 3], "pretrained_output_dims": {"text": 2}}
    return TabularSequenceFeatures(ALL, 6, **{**options, **arguments})


def test_the_joined_vector_is_the_item_then_the_others_by_name(columns: Batch) -> None:
    inputs = everything().eval()
    found = inputs.embed(columns)
    assert inputs.output_dim == found.shape[-1] == 4 + 4 + 3 + 4 + 2 + 2
    assert inputs.item_slice() == slice(0, 4)
    torch.testing.assert_close(found[..., :4], inputs.item_table(columns["item_id"]))
    torch.testing.assert_close(found[..., 4:8], inputs.tables["brand"](columns["brand"]))
    country = inputs.tables["country"](columns["country"])[:, None].expand(-1, 4, -1)
    torch.testing.assert_close(found[..., 11:15], country)  # behind "continuous_projection"
    torch.testing.assert_close(found[..., 15:17], columns["profile"][:, None].expand(-1, 4, -1))
    mlp: Any = inputs.to_merge["continuous_module"].blocks[1]
    age = columns["age"][:, None, None].expand(-1, 4, -1)
    torch.testing.assert_close(found[..., 8:11], mlp(torch.cat([age, columns["price"][..., None]], dim=-1)))


def test_columns_of_sessions_are_the_same_as_repeated_at_every_event(columns: Batch) -> None:
    inputs = everything(post="layer-norm", d_output=7).eval()
    repeated = {
        name: value if name in inputs.sequence_names else value[:, None].expand(-1, 4, *value.shape[1:])
        for name, value in columns.items()
    }
    torch.testing.assert_close(inputs.embed(columns), inputs.embed(repeated))
    assert inputs.sequence_names == ["item_id", "brand", "price", "text"]


@pytest.mark.parametrize("aggregation", ["element-wise-sum", "element-wise-sum-item-multi"])
def test_sums_need_equal_widths(aggregation: str, columns: Batch) -> None:
    inputs = everything(aggregation=aggregation, continuous_projection=4, pretrained_output_dims=4)
    assert inputs.output_dim == 4
    assert inputs.item_slice() == slice(0, 4)
    assert inputs.embed(columns).shape == (3, 4, 4)
    with pytest.raises(ValueError, match="equal width, found 'item_id' 4"):
        everything(aggregation=aggregation)


def test_stack_is_for_inputs_without_masking(columns: Batch) -> None:
    equal = {"continuous_projection": 4, "pretrained_output_dims": 4, "aggregation": "stack"}
    assert everything(**equal).embed(columns).shape == (3, 4, 4, 6)
    for more in ({"masking": "clm"}, {"d_output": 3}):
        with pytest.raises(ValueError, match="stack"):
            everything(**equal, **more)


def test_soft_embeddings_of_numbers(columns: Batch) -> None:
    inputs = everything(continuous_soft_embeddings=True, continuous_projection=None, soft_embedding_dims={"age": 5})
    assert inputs.output_widths["price"] == 8
    assert inputs.output_widths["age"] == 5
    assert inputs.embed(columns).shape[-1] == inputs.output_dim
    together = everything(continuous_soft_embeddings=True, continuous_projection=6)
    assert together.output_widths["continuous_projection"] == 6
    assert together.embed(columns).shape[-1] == together.output_dim


def test_a_projection_is_a_block_or_any_module(columns: Batch) -> None:
    joined = everything().output_dim
    for projection in (MLPBlock([7]), torch.nn.Linear(joined, 7)):
        inputs = everything(projection=projection, masking="mlm")
        assert inputs.output_dim == inputs.masking.hidden_size == 7
        assert inputs.embed(columns).shape == (3, 4, 7)
        again = restore(describe(inputs))
        again.load_state_dict(inputs.state_dict())
        assert torch.equal(again.embed(columns), inputs.embed(columns))
    with pytest.raises(ValueError, match=f"vectors of width {joined}"):
        everything(projection=torch.nn.Linear(joined + 1, 7))
    with pytest.raises(ValueError, match="not both"):
        everything(projection=MLPBlock([7]), d_output=7)


def test_masking_is_a_name_or_an_object() -> None:
    assert everything(masking="mlm", masking_arguments={"mlm_probability": 0.4}).masking.mlm_probability == 0.4
    own = CausalLanguageModeling(hidden_size=19)
    inputs = everything(masking=own)
    assert inputs.masking is own
    assert own.reserved == ITEM.reserved
    with pytest.raises(ValueError, match="item id"):
        TabularSequenceFeatures(SIDE, 6, masking="clm")


def test_without_an_item_id_the_inputs_still_embed(columns: Batch) -> None:
    inputs = TabularSequenceFeatures(SIDE, 6)
    states = inputs(columns)
    assert states.read.tolist() == [n - 1 for n in LENGTHS]
    assert inputs.item_id is None
    with pytest.raises(AttributeError, match="no item id"):
        _ = inputs.item
    numbers = TabularSequenceFeatures([Feature("price", "continuous")], 6)
    assert numbers({"price": torch.randn(2, 3)}).values.shape == (2, 3, 1)
    with pytest.raises(ValueError, match="must be a list column"):
        TabularSequenceFeatures([Feature("item_id", "categorical", 9, item=True, sequence=False)], 6)
    with pytest.raises(ValueError, match="'item_id' must be a list"):
        TabularSequenceFeatures(
            [Feature("item_id", "categorical", 9, item=True, sequence=False), Feature("price", "continuous")], 6
        )


def test_pooling_over_the_session_is_refused() -> None:
    with pytest.raises(ValueError, match="sequence_combiner would show every event"):
        everything(sequence_combiner="mean")


def test_everything_is_saved_and_restored(columns: Batch) -> None:
    inputs = everything(
        d_output=7, masking="mlm", masking_arguments={"mlm_probability": 0.3}, continuous_soft_embeddings=True,
        pre=StochasticSwapNoise(replacement_prob=0.3), post=["layer-norm", TabularDropout(0.2)], combiner="sum",
        embeddings_initializers={"brand": PretrainedEmbeddingsInitializer(torch.rand(9, 5))}, normalizer="layer-norm",
    )  # fmt: skip
    described = describe(inputs)
    again = restore(described)
    assert describe(again) == described
    again.load_state_dict(inputs.state_dict())
    assert torch.equal(again.eval().embed(columns), inputs.eval().embed(columns))
    assert again.masking.mlm_probability == 0.3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("aggregation", ["concat", "element-wise-sum", "element-wise-sum-item-multi"])
def test_embedding_is_traced_for_any_batch_and_length(aggregation: str) -> None:
    class Embed(torch.nn.Module):
        def __init__(self, inputs: TabularSequenceFeatures) -> None:
            super().__init__()
            self.inputs = inputs

        def forward(self, columns: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.inputs.embed(columns)

    inputs = everything(
        aggregation=aggregation, continuous_projection=4, pretrained_output_dims=4, pre="ssn",
        post=["layer-norm", "dropout"], normalizer="layer-norm", d_output=6,
    ).eval()  # fmt: skip
    traced = torch.jit.trace(Embed(inputs), (random_columns(ALL, LENGTHS),), strict=False, check_trace=False)
    for lengths in ([1], [5, 2], [2, 2, 2, 1, 1, 1, 4]):
        other = random_columns(ALL, lengths, seed=3)
        torch.testing.assert_close(traced(other), inputs.embed(other))


def test_a_new_column_in_the_schema_needs_no_change_of_code(schema_of: Callable[..., Any]) -> None:
    merlin = _merlin()
    schema = schema_of(12, 8)

    def build() -> Any:
        torch.manual_seed(0)
        return TabularSequenceFeatures.from_schema(
            schema, max_sequence_length=6, continuous_projection=4, d_output=8, masking="clm"
        )

    def embed(inputs: Any) -> tuple[int, ...]:
        return tuple(inputs.embed(random_columns(inputs.features, LENGTHS)).shape)

    assert embed(build()) == (3, 4, 8)
    listed = {"is_list": True, "is_ragged": True}
    codes: dict[str, Any] = {"dtype": "int64", "tags": ["categorical"], "properties": {"domain": {"min": 0, "max": 7}}}
    for column in (
        merlin.ColumnSchema("colour", **codes, **listed),
        merlin.ColumnSchema("discount", dtype="float32", tags=["continuous"], **listed),
        merlin.ColumnSchema("age", dtype="float32", tags=["continuous"]),
        merlin.ColumnSchema("country", **codes),
        merlin.ColumnSchema("text", dtype="float32", tags=["embedding"], dims=(None, (0, 8), 5)),
        merlin.ColumnSchema("portrait", dtype="float32", tags=["embedding"], dims=(None, 4)),
    ):  # fmt: skip
        schema[column.name] = column
        inputs = build()
        assert column.name in inputs.feature_names
        assert embed(inputs) == (3, 4, 8)
    assert inputs.sequence_names == ["item_id", "colour", "shop (a.b)", "discount", "price", "text"]
    target = merlin.ColumnSchema("bought", dtype="int64", tags=["binary_classification"])
    schema["bought"] = target
    assert "bought" not in build().feature_names


def test_tags_choose_the_columns(schema_of: Callable[..., Any]) -> None:
    schema = schema_of(12, 8)
    schema["price"] = schema["price"].with_tags(["item"])
    build = TabularSequenceFeatures.from_schema
    assert build(schema, continuous_tags=None).feature_names == ["item_id", "shop (a.b)"]
    assert build(schema, categorical_tags=None).feature_names == ["price"]
    assert build(schema, categorical_tags=None, masking="clm").feature_names == ["item_id", "price"]
    assert build(schema, continuous_tags="item", categorical_tags="item").feature_names == ["item_id", "price"]
    with pytest.raises(TypeError, match="no_such"):
        build(schema, no_such=1)


def rows() -> list[Feature]:
    return [
        Feature("item_id", "categorical", 30, item=True, sequence=False),
        Feature("categories", "categorical", 9),
        Feature("age", "continuous", sequence=False),
        Feature("text", "embedding", sequence=False, width=3),
    ]


def test_rows_have_one_vector_each() -> None:
    features = TabularFeatures(rows(), embedding_dim_default=4)
    columns = random_columns(features.features, LENGTHS)
    found = features(columns)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "item_id": (3, 4), "categories": (3, 4), "age": (3, 1), "text": (3, 3),
    }  # fmt: skip
    one = columns["categories"][1, 0]
    torch.testing.assert_close(found["categories"][1], features.tables["categories"].weight[one])
    joined = TabularFeatures(rows(), embedding_dim_default=4, aggregation="concat", continuous_projection=2)
    assert joined.output_dim == 4 + 4 + 2 + 3
    assert joined(columns).shape == (3, 13)
    body = joined >> MLPBlock([5])
    assert isinstance(body, SequentialBlock)
    assert body(columns).shape == (3, 5)
    again = restore(describe(joined))
    again.load_state_dict(joined.state_dict())
    assert torch.equal(again(columns), joined(columns))


def test_rows_have_no_lists_of_numbers() -> None:
    with pytest.raises(ValueError, match="'price' is a list of numbers"):
        TabularFeatures([*rows(), Feature("price", "continuous")])


def test_sequences_of_vectors_are_pooled_for_rows() -> None:
    features = TabularFeatures([Feature("text", "embedding", width=3)], sequence_combiner="max", aggregation="concat")
    column = torch.tensor([[[-1.0, -2.0, -3.0], [-2.0, -1.0, -3.0], [0.0, 0.0, 0.0]]])
    assert features({"text": column}).tolist() == [[-1.0, -1.0, -3.0]]
