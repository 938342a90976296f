"""The algebra of tabular modules, aggregations and transformations."""

from typing import Any

import pytest
import torch

from modeling.blocks.mlp import MLPBlock
from modeling.blocks.sequential import SequentialBlock
from modeling.inputs.aggregation import (
    ConcatFeatures,
    ElementwiseSum,
    ElementwiseSumItemMulti,
    StackFeatures,
    TabularAggregation,
    aggregation_registry,
)
from modeling.inputs.continuous import ContinuousFeatures
from modeling.inputs.tabular import AsTabular, FilterFeatures, MergeTabular, TabularModule
from modeling.inputs.transformations import TabularDropout, tabular_transformation_registry
from modeling.schema import Feature
from modeling.serialization import describe, restore

ITEM = Feature("item_id", "categorical", 9, 1, True)


def vectors(**shapes: list[int]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_a_plain_module_gives_back_what_it_gets() -> None:
    given = vectors(a=[2, 3])
    assert TabularModule()(given) == given


def test_pre_post_and_aggregation_run_in_this_order() -> None:
    module = TabularModule(pre=FilterFeatures(["a", "b"]), post=FilterFeatures(["a"]), aggregation="concat")
    given = vectors(a=[2, 3], b=[2, 1], c=[2, 1])
    torch.testing.assert_close(module(given), given["a"])
    assert TabularModule(pre=FilterFeatures(["a", "b"]))(given).keys() == {"a", "b"}


def test_filter_and_as_tabular() -> None:
    given = vectors(a=[2, 3], b=[2, 1])
    assert FilterFeatures(["a", "z"])(given).keys() == {"a"}
    assert AsTabular("name")(given["a"])["name"] is given["a"]


def test_modules_are_put_behind_each_other_and_side_by_side() -> None:
    torch.manual_seed(0)
    first = ContinuousFeatures(["a", "b"], aggregation="concat") >> MLPBlock([4]) >> AsTabular("both")
    assert isinstance(first, SequentialBlock)
    merged = MergeTabular(first, ContinuousFeatures(["c"]), aggregation="concat")
    assert merged.output_dim == 5
    assert sorted(merged.feature_names) == ["a", "b", "c"]
    columns = {"a": numbers(1, 2), "b": numbers(3, 4), "c": numbers(5, 6)}
    joined = merged(columns)
    assert joined.shape == (2, 5)
    mlp: Any = first.blocks[1]
    torch.testing.assert_close(joined[:, :4], mlp(torch.tensor([[1.0, 3.0], [2.0, 4.0]])))
    torch.testing.assert_close(joined[:, 4], columns["c"])
    whole = merged >> MLPBlock([3])
    assert whole(columns).shape == (2, 3)
    assert whole.output_dim == 3


def test_merging_takes_lists_and_dicts_and_refuses_clashes() -> None:
    columns = {"a": numbers(1), "b": numbers(2)}
    a, b = ContinuousFeatures(["a"]), ContinuousFeatures(["b"])
    for merged in (MergeTabular([a, b]), MergeTabular({"x": a, "y": b}), a.merge(b)):
        assert {name: value.item() for name, value in merged(columns).items()} == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="'a'"):
        MergeTabular(a, ContinuousFeatures(["a"]))
    with pytest.raises(ValueError, match="AsTabular"):
        MergeTabular(a, ContinuousFeatures(["b"], aggregation="concat"))(columns)


def test_a_merge_is_saved_and_restored() -> None:
    merged = MergeTabular(
        ContinuousFeatures(["a", "b"], aggregation="concat") >> MLPBlock([4]) >> AsTabular("both"),
        ContinuousFeatures(["c"]), post=["layer-norm", TabularDropout(0.5)], aggregation="concat",
    ).eval()  # fmt: skip
    again = restore(describe(merged)).eval()
    again.load_state_dict(merged.state_dict())
    columns = {"a": numbers(1, 2), "b": numbers(3, 4), "c": numbers(5, 6)}
    torch.testing.assert_close(again(columns), merged(columns), rtol=0, atol=0)


def test_concat_puts_the_item_first_and_the_others_by_name() -> None:
    given = vectors(z=[2, 4, 1], item_id=[2, 4, 3], b=[2, 4, 2])
    expected = torch.cat([given["item_id"], given["b"], given["z"]], dim=-1)
    module = TabularModule(aggregation="concat", schema=[ITEM])
    module.finish()
    torch.testing.assert_close(module(given), expected)
    torch.testing.assert_close(ConcatFeatures()(given), torch.cat([given["b"], given["item_id"], given["z"]], -1))


def test_stack_and_sum_by_hand() -> None:
    given = {"b": torch.tensor([[1.0, 2.0]]), "a": torch.tensor([[10.0, 20.0]])}
    assert StackFeatures()(given).tolist() == [[[10.0, 1.0], [20.0, 2.0]]]
    assert StackFeatures(axis=1)(given).tolist() == [[[10.0, 20.0], [1.0, 2.0]]]
    assert ElementwiseSum()(given).tolist() == [[11.0, 22.0]]


def test_the_item_multiplies_the_sum_of_the_others() -> None:
    given = {"a": torch.tensor([[1.0, 2.0]]), "item_id": torch.tensor([[3.0, 5.0]]), "b": torch.tensor([[10.0, 20.0]])}
    assert ElementwiseSumItemMulti([ITEM])(given).tolist() == [[33.0, 110.0]]
    again = restore(describe(ElementwiseSumItemMulti([ITEM])))
    assert again(given).tolist() == [[33.0, 110.0]]
    with pytest.raises(ValueError, match="item id"):
        ElementwiseSumItemMulti()(given)
    with pytest.raises(ValueError, match="another feature"):
        ElementwiseSumItemMulti([ITEM])({"item_id": given["item_id"]})


@pytest.mark.parametrize("name", ["concat", "element-wise-sum", "element-wise-sum-item-multi"])
def test_features_of_sessions_count_at_every_event(name: str) -> None:
    given = vectors(item_id=[2, 3, 4], country=[2, 4])
    aggregation = aggregation_registry[name]()
    aggregation.use_features([ITEM])
    spread = {"item_id": given["item_id"], "country": given["country"][:, None].repeat(1, 3, 1)}
    torch.testing.assert_close(aggregation(given), aggregation(spread))
    assert aggregation(given).shape[:2] == (2, 3)


@pytest.mark.parametrize(
    ("aggregation", "shapes", "message"),
    [
        (ConcatFeatures(), {"a": [2, 3, 1], "b": [2, 4, 1]}, r"'a' has \[2, 3, 1\], 'b' has \[2, 4, 1\]"),
        (ElementwiseSum(), {"a": [2, 3], "b": [2, 4]}, r"'b' has \[2, 4\]"),
        (StackFeatures(), {"a": [2, 3], "b": [2, 4]}, "equal shape"),
        (ElementwiseSumItemMulti([ITEM]), {"item_id": [2, 3], "b": [2, 4]}, "equal shape"),
        (ConcatFeatures(), {}, "no features"),
    ],
)
def test_shapes_that_do_not_fit_are_named(aggregation: Any, shapes: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aggregation(vectors(**shapes))


def test_widths_that_do_not_fit_are_found_when_the_module_is_made() -> None:
    wide = ContinuousFeatures(["a", "b"], aggregation="concat") >> MLPBlock([4]) >> AsTabular("both")
    with pytest.raises(ValueError, match=r"equal width, found 'both' 4, 'c' 1"):
        MergeTabular(wide, ContinuousFeatures(["c"]), aggregation="element-wise-sum")


def test_unknown_names_are_refused_and_new_ones_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="aggregation must be one of concat"):
        TabularModule(aggregation="median")
    with pytest.raises(ValueError, match="pre must be one of stochastic-swap-noise"):
        TabularModule(pre="noise")
    with pytest.raises(ValueError, match="post must be"):
        TabularModule(post="noise")

    class First(TabularAggregation):
        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return inputs[min(inputs)]

    monkeypatch.setitem(aggregation_registry, "first", First)
    given = vectors(b=[2, 1], a=[2, 3])
    assert TabularModule(aggregation="first")(given) is given["a"]
    assert {"ssn", "stochastic-swap-noise", "layer-norm", "dropout"} <= set(tabular_transformation_registry)


def test_parts_can_be_exchanged() -> None:
    module = ContinuousFeatures(["a", "b"])
    columns = {"a": numbers(1), "b": numbers(2)}
    assert isinstance(module(columns), dict)
    assert module.set_aggregation("concat")(columns).tolist() == [[1, 2]]
    assert module.set_aggregation("element-wise-sum")(columns).tolist() == [[3]]
    module.set_aggregation("concat").set_post(FilterFeatures(["b"]))
    assert module(columns).tolist() == [[2]]
    assert module.output_dim == 1
