"""Stochastic swap noise, layer norm and dropout."""

import pytest
import torch

from modeling.inputs.features import TabularSequenceFeatures
from modeling.inputs.transformations import StochasticSwapNoise, TabularDropout, TabularLayerNorm
from modeling.schema import Feature

ITEM = Feature("item_id", "categorical", 2000, 1, True)
FEATURES = [ITEM, Feature("price", "continuous"), Feature("text", "embedding", width=3)]
FEATURES += [Feature("age", "continuous", sequence=False), Feature("country", "categorical", 99, sequence=False)]


def columns(rows: int = 40, width: int = 25) -> dict[str, torch.Tensor]:
    """All values of a column differ, so that each tells where it came from."""
    torch.manual_seed(1)
    n = torch.randint(1, width + 1, (rows,))
    real = torch.arange(width) < n[:, None]
    ids = torch.arange(1, rows * width + 1).reshape(rows, width)
    found = {"item_id": ids * real, "price": (ids - 7.0) * real}
    found["text"] = torch.stack([ids, ids + 0.25, ids + 0.5], dim=-1).float() * real[..., None]
    found["age"] = torch.arange(rows).float()
    found["country"] = torch.arange(1, rows + 1)
    return found


def test_noise_is_for_training_only() -> None:
    noise, given = StochasticSwapNoise(FEATURES, replacement_prob=0.9).eval(), columns()
    assert all(torch.equal(noise(given)[name], given[name]) for name in given)
    assert torch.equal(noise(given["item_id"]), given["item_id"])


def test_noise_replaces_the_asked_share_by_values_of_the_same_column() -> None:
    torch.manual_seed(0)
    given = columns()
    noisy = StochasticSwapNoise(FEATURES, replacement_prob=0.3)(given)
    real = given["item_id"] != 0
    for name, share in (("item_id", 0.3), ("price", 0.3), ("text", 0.3)):
        changed = noisy[name] != given[name]
        changed = changed.any(-1) if name == "text" else changed
        assert not changed[~real].any()
        assert changed[real].float().mean().item() == pytest.approx(share, abs=0.07)
        assert set(noisy[name][real].flatten().tolist()) <= set(given[name][real].flatten().tolist())
    # The price of the item 7 is 0, which is a price: it may be drawn and replaced like any other.
    assert (noisy["text"][..., 1] - noisy["text"][..., 0])[real].eq(0.25).all(), "vectors are swapped whole"
    assert 0 < (noisy["age"] != given["age"]).float().mean() < 0.6
    assert 0 < (noisy["country"] != given["country"]).float().mean() < 0.6


def test_features_are_swapped_independently() -> None:
    torch.manual_seed(0)
    given = columns()
    noisy = StochasticSwapNoise(FEATURES, replacement_prob=0.5)(given)
    ids, prices = noisy["item_id"] != given["item_id"], noisy["price"] != given["price"]
    real = given["item_id"] != 0
    assert (ids & prices)[real].float().mean().item() == pytest.approx(0.25, abs=0.07)


def test_padding_is_never_drawn_without_a_schema_either() -> None:
    torch.manual_seed(0)
    given = columns()["item_id"]
    for noisy in (
        StochasticSwapNoise(replacement_prob=0.5)({"a": given})["a"],
        StochasticSwapNoise(replacement_prob=0.5)(given),
        StochasticSwapNoise(replacement_prob=0.5)({"a": given}, input_mask=given != 0)["a"],
    ):
        assert torch.equal(noisy == 0, given == 0)
        assert (noisy != given).any()
    nothing = torch.zeros(2, 3, dtype=torch.long)
    assert torch.equal(StochasticSwapNoise(replacement_prob=1)(nothing), nothing)


def test_a_probability_is_a_probability() -> None:
    with pytest.raises(ValueError, match="replacement_prob"):
        StochasticSwapNoise(replacement_prob=1.5)


def test_targets_are_taken_from_the_columns_without_noise() -> None:
    torch.manual_seed(0)
    given = {"item_id": columns()["item_id"]}
    inputs = TabularSequenceFeatures([ITEM], 30, masking="clm", pre=StochasticSwapNoise(replacement_prob=0.5))
    before = given["item_id"].clone()
    states = inputs(given, training=True)
    assert states.targets is not None
    assert torch.equal(given["item_id"], before)
    assert torch.equal(states.targets, before[:, 1:])
    quiet = inputs.eval().embed(given)
    assert not torch.equal(states.values, quiet[:, :-1])
    torch.testing.assert_close(quiet, inputs.item_table(before))


def test_layer_norm_normalises_each_feature_wider_than_one() -> None:
    torch.manual_seed(0)
    given = {"wide": torch.randn(5, 7, 16) * 3 + 2, "narrow": torch.randn(5, 7, 1)}
    norm = TabularLayerNorm({"wide": 16, "narrow": 1}).double()
    found = norm({name: value.double() for name, value in given.items()})
    assert torch.equal(found["narrow"], given["narrow"].double())
    assert found["wide"].mean(-1).abs().max() < 1e-9
    torch.testing.assert_close(found["wide"].std(-1, unbiased=False), torch.ones(5, 7).double(), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="'other'"):
        norm({"other": given["wide"]})


def test_layer_norm_is_applied_before_the_features_are_joined() -> None:
    torch.manual_seed(0)
    two = [ITEM, Feature("brand", "categorical", 9)]
    inputs = TabularSequenceFeatures(
        two, 5, aggregation="element-wise-sum", embedding_dim_default=8, item_embedding_std=50, post="layer-norm"
    )
    joined = inputs.embed({"item_id": torch.tensor([[5]]), "brand": torch.tensor([[3]])})[0, 0]
    parts = [
        torch.nn.functional.layer_norm(t.weight[i], (8,)) for t, i in zip(inputs.tables.values(), (5, 3), strict=True)
    ]
    torch.testing.assert_close(joined, parts[0] + parts[1])


def test_dropout_zeroes_components_in_training() -> None:
    torch.manual_seed(0)
    given = {"a": torch.ones(100, 10), "b": torch.ones(100, 10)}
    dropout = TabularDropout(0.25)
    found = dropout(given)
    assert found["a"].eq(0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert not torch.equal(found["a"], found["b"])
    assert torch.equal(dropout.eval()(given)["a"], given["a"])
