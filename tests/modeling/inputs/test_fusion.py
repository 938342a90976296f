"""Context joined to the answers of a sequence model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.backbones.block import TransformerBlock
from modeling.backbones.configs_both import XLNetConfig
from modeling.backbones.configs_causal import GPT2Config
from modeling.blocks.mlp import MLPBlock
from modeling.blocks.sequential import SequentialBlock
from modeling.inputs.features import TabularSequenceFeatures
from modeling.inputs.fusion import PostContextFusion
from modeling.inputs.tabular_features import TabularFeatures
from modeling.model import Model
from modeling.schema import Feature
from modeling.serialization import describe, restore
from modeling.synthetic import random_columns
from modeling.tasks.head import Head
from modeling.tasks.next_item import NextItemPredictionTask

ITEM = Feature("item_id", "categorical", 30, 3, True)
COUNTRY = Feature("country", "categorical", 5, sequence=False)
AGE = Feature("age", "continuous", sequence=False)
HOUR = Feature("hour", "categorical", 25)
LIMIT = 6
FUSIONS = ["concat", "elementwise-mul", "elementwise-sum"]


def of_sessions(width: int = 8) -> SequentialBlock:
    features = TabularFeatures([COUNTRY, AGE], embedding_dim_default=4, embedding_std=1.0, aggregation="concat")
    return features >> MLPBlock([width], activation=None)


def of_events(**arguments: Any) -> TabularSequenceFeatures:
    return TabularSequenceFeatures([HOUR], LIMIT, embedding_dim_default=8, embedding_std=1.0, **arguments)


def sequence(masking: str | None = "clm") -> SequentialBlock:
    inputs = TabularSequenceFeatures([ITEM], LIMIT, embedding_dim_default=8, item_embedding_std=1.0, masking=masking)
    config = XLNetConfig if masking == "mlm" else GPT2Config
    return SequentialBlock(inputs, TransformerBlock(config.build(8, 2, 1, LIMIT, initializer_range=0.3, dropout=0.0)))


def model(context: Any, fusion: str = "concat", masking: str = "clm") -> Model:
    torch.manual_seed(0)
    body = PostContextFusion(sequence(masking), context, fusion)
    return Model(Head(body, NextItemPredictionTask())).double().eval()


def batch(seed: int = 0, lengths: tuple[int, ...] = (4, 1, 3, 2)) -> dict[str, torch.Tensor]:
    found = random_columns([ITEM, COUNTRY, AGE, HOUR], lengths, seed)
    return {name: value.double() if value.is_floating_point() else value for name, value in found.items()}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_context_is_joined_at_every_position(fusion: str) -> None:
    torch.manual_seed(0)
    body = PostContextFusion(sequence(), of_sessions(), fusion).eval()
    columns = {name: value.float() if value.is_floating_point() else value for name, value in batch().items()}
    states, before = body(columns), body.sequential_module(columns)
    context = body.post_context_module(columns)[:, None].expand(-1, 4, -1)
    expected = {
        "concat": torch.cat([before.values, context], dim=-1),
        "elementwise-mul": before.values * (1 + context),
        "elementwise-sum": before.values + context,
    }[fusion]
    torch.testing.assert_close(states.values, expected)
    assert body.output_dim == expected.shape[-1]
    assert torch.equal(states.read, before.read)


def test_a_neutral_context_multiplies_by_one() -> None:
    body = PostContextFusion(sequence(), of_sessions(), "elementwise-mul").eval()
    linear: Any = body.post_context_module.blocks[1].layers[0]
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    columns = {name: value.float() if value.is_floating_point() else value for name, value in batch().items()}
    torch.testing.assert_close(body(columns).values, body.sequential_module(columns).values)


@pytest.mark.parametrize("masking", ["clm", "mlm"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_model_with_context_trains_tests_and_is_served_alike(fusion: str, masking: str, tmp_path: Path) -> None:
    fused = model(of_sessions(), fusion, masking)
    columns = batch()
    assert fused.head.feature_names == ["item_id", "country", "age"]
    loss = fused.train()(columns, training=True)["loss"]
    loss.backward()
    assert all(p.grad is not None and p.grad.ne(0).any() for p in fused.head.body.post_context_module.parameters())
    fused.eval()
    with torch.no_grad():
        tested = fused(columns, testing=True)["predictions"]
        for row, n in enumerate((4, 1, 3, 2)):
            alone = {name: value[row : row + 1] for name, value in columns.items()}
            alone["item_id"] = alone["item_id"][:, : max(1, n - 1)].clone()
            alone["item_id"][:, n - 1 :] = 0
            torch.testing.assert_close(fused(alone)[0, 3:], tested[row, 3:])
        changed = {**columns, "country": columns["country"] % 4 + 1}
        assert (fused(changed)[:, 3:] - fused(columns)[:, 3:]).abs().amax(1).min() > 1e-4
    fused.float().save(tmp_path)
    again = Model.load(tmp_path)
    floats = {name: value.float() if value.is_floating_point() else value for name, value in columns.items()}
    with torch.no_grad():
        torch.testing.assert_close(again(floats)[:, 3:], fused(floats)[:, 3:], rtol=0, atol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_a_discriminator_sees_the_context_too(tied: bool) -> None:
    torch.manual_seed(0)
    inputs = TabularSequenceFeatures(
        [ITEM], LIMIT, embedding_dim_default=8, masking="rtd", masking_arguments={"tied_generator": tied}
    )
    config = XLNetConfig.build(8, 2, 1, LIMIT, initializer_range=0.3, dropout=0.0)
    body = PostContextFusion(SequentialBlock(inputs, TransformerBlock(config)), of_sessions())
    trained = Model(Head(body, NextItemPredictionTask()))
    detection: Any = trained.head.detection
    columns = {name: value.float() if value.is_floating_point() else value for name, value in batch().items()}
    logits, events = detection.logits(body, columns)
    assert logits.shape == events.shape == columns["item_id"].shape
    other, _ = detection.logits(body, {**columns, "country": columns["country"] % 4 + 1})
    assert (logits - other)[events].abs().min() > 1e-6
    trained(columns, training=True)["loss"].backward()
    context = body.post_context_module if tied else detection.trunk.context
    assert tied == (detection.trunk is None)
    for module in (detection.judge, context):
        assert all(p.grad is not None and p.grad.ne(0).any() for p in module.parameters())


def test_context_of_events_never_shows_the_target_or_what_follows() -> None:
    fused = model(of_events())
    columns = batch(lengths=(6, 4, 2, 5))
    with torch.no_grad():
        before = fused(columns, testing=True)["predictions"]
        last = (columns["item_id"] != 0).sum(1) - 1
        rows = torch.arange(len(last))
        for at, should_change in ((last, False), (last - 1, True)):
            hour = columns["hour"].clone()
            hour[rows, at] = hour[rows, at] % 24 + 1
            after = fused({**columns, "hour": hour}, testing=True)["predictions"]
            assert ((after - before)[:, 3:].abs().amax(1) > 1e-4).tolist() == [should_change] * 4
    # In training, the vector of a position knows the context of its own event and of no later one.
    states = fused.head.body(columns, training=True)
    hour = columns["hour"].clone()
    hour[:, 3] = hour[:, 3] % 24 + 1
    changed = (fused.head.body({**columns, "hour": hour}, training=True).values - states.values).abs().amax(
        (0, 2)
    ) > 1e-6
    assert changed.tolist() == [False, False, False, True, False]


def test_context_that_would_tell_the_target_is_refused() -> None:
    pooled = TabularFeatures([HOUR], aggregation="concat", embedding_dim_default=8)
    for context in (pooled, SequentialBlock(of_events(), TransformerBlock(GPT2Config.build(8, 2, 1, LIMIT)))):
        with pytest.raises(ValueError, match="'hour' is a list over the session's events"):
            PostContextFusion(sequence(), context)
    with pytest.raises(ValueError, match="'hour' belongs to events, and masking 'mlm'"):
        PostContextFusion(sequence("mlm"), of_events())
    assert PostContextFusion(sequence(None), of_events()).feature_names == ["item_id", "hour"]


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="fusion_aggregation must be one of"):
        PostContextFusion(sequence(), of_sessions(), "average")
    with pytest.raises(ValueError, match="as wide as the body's vectors: 5 and 8"):
        PostContextFusion(sequence(), of_sessions(5), "elementwise-mul")
    with pytest.raises(ValueError, match="give it an aggregation"):
        PostContextFusion(sequence(), TabularFeatures([COUNTRY]))
    with pytest.raises(ValueError, match="begins with TabularSequenceFeatures"):
        PostContextFusion(MLPBlock([3]), of_sessions())


def test_a_fusion_is_saved_and_restored_with_its_columns_in_order() -> None:
    body = PostContextFusion(sequence(), of_sessions(), "concat").eval()
    again = restore(describe(body)).eval()
    again.load_state_dict(body.state_dict())
    columns = {name: value.float() if value.is_floating_point() else value for name, value in batch().items()}
    assert torch.equal(again(columns).values, body(columns).values)
    assert again.feature_names == ["item_id", "country", "age"]
    assert again.sequence_names == ["item_id"]
