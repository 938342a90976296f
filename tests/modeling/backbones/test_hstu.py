"""HSTU against the paper's equations, and where its times come from."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import modeling as tr
from modeling.backbones.hstu import HSTU, HSTUSettings, buckets
from modeling.backbones.registry import backbone
from modeling.checks import CHECKS, cell_maker, run_check
from modeling.schema import Feature

HEADS, WIDTH, TOTAL = 2, 8, 6
FEATURES = [Feature("item_id", "categorical", 30, 3, True), Feature("since", "continuous")]


def loud(**options: Any) -> Any:
    torch.manual_seed(2)
    network = backbone(tr.HSTUConfig.build(HEADS * WIDTH, HEADS, 2, TOTAL, **options), True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return network.double().eval()


def session(length: int) -> Tensor:
    return torch.randn(1, length, HEADS * WIDTH, dtype=torch.double, generator=torch.Generator().manual_seed(6))


def gaps_of(*seconds: float) -> Tensor:
    return torch.tensor([seconds], dtype=torch.double).log1p()


@pytest.mark.parametrize("timed", [False, True])
def test_hstu_follows_the_paper(timed: bool) -> None:
    network = loud(**({"time_feature": "since", "time_buckets": 20} if timed else {}))
    clock = [0, 2, 2, 90, 100_000]
    gaps = gaps_of(0, 2, 0, 88, 99_910)
    x = session(5)[0]
    for layer in network.layers:
        mixed = F.silu(F.layer_norm(x, [16], eps=1e-6) @ layer.uvqk.weight.T)
        u, v, q, k = (mixed[:, part * 16 : part * 16 + 16] for part in range(4))
        rows = []
        for i in range(5):
            parts = []
            for h in range(HEADS):
                place = slice(h * WIDTH, h * WIDTH + WIDTH)
                total = torch.zeros(WIDTH, dtype=torch.double)
                for j in range(i + 1):
                    score = q[i, place] @ k[j, place] + layer.distance.weight[i - j, h]
                    if timed:
                        bucket = min(19, int(math.log(max(1, clock[i] - clock[j])) / 0.301))
                        score = score + layer.time.weight[bucket, h]
                    total = total + F.silu(score) / TOTAL * v[j, place]
                parts.append(total)
            rows.append(torch.cat(parts))
        x = x + layer.output(F.layer_norm(torch.stack(rows), [16], eps=1e-6) * u)
    with torch.no_grad():
        found = network(inputs_embeds=session(5), **({"gaps": gaps} if timed else {}))[0][0]
    torch.testing.assert_close(found, network.norm(x).detach(), rtol=1e-9, atol=1e-9)


def test_buckets_by_hand() -> None:
    """ln 10 / 0.301 = 7.6, ln 11 / 0.301 = 8.0 (7.97), ln 100 / 0.301 = 15.3, ln 110 and ln 111: 15.6."""
    gaps = gaps_of(1e6, 1, 10, 100)
    wanted = [[0, 0, 0, 0], [0, 0, 0, 0], [7, 7, 0, 0], [15, 15, 15, 0]]
    assert buckets(gaps, HSTUSettings())[0].tolist() == wanted
    few = HSTUSettings(time_buckets=10)
    assert buckets(gaps, few)[0].tolist() == [[min(9, b) for b in row] for row in wanted]
    # The same times, normalised; the gap before the first event is not read.
    normalised = (gaps_of(5, 1, 10, 100) - 3.0) / 2.0
    assert buckets(normalised, HSTUSettings(time_mean=3.0, time_deviation=2.0))[0].tolist() == wanted


def test_buckets_of_times_that_cannot_be() -> None:
    """Negative gaps count as none, and endless ones stay numbers."""
    gaps = torch.tensor([[0.0, -3.0, 90.0, math.log1p(100)]])
    assert buckets(gaps, HSTUSettings())[0].tolist() == [[0] * 4, [0] * 4, [63, 63, 0, 0], [63, 63, 15, 0]]
    assert buckets(torch.zeros(2, 1), HSTUSettings()).tolist() == [[[0]], [[0]]]


def test_a_pause_moves_the_answers_behind_it_and_no_others() -> None:
    network = loud(time_feature="since")
    with torch.no_grad():
        usual = network(inputs_embeds=session(5), gaps=gaps_of(0, 5, 5, 5, 5))[0][0]
        paused = network(inputs_embeds=session(5), gaps=gaps_of(0, 5, 5, 5000, 5))[0][0]
    moved = (usual - paused).abs().amax(-1)
    assert moved[:3].eq(0).all()
    assert moved[3:].min() > 1e-4


def test_training_reaches_the_tables_of_times_that_occur() -> None:
    network = loud(time_feature="since", time_buckets=16).train()
    network(inputs_embeds=session(4), gaps=gaps_of(0, 1, 10, 100))[0].square().sum().backward()
    for layer in network.layers:
        reached = layer.time.weight.grad.abs().amax(1) > 0
        assert reached.nonzero().flatten().tolist() == [0, 7, 15]


def config(limit: int, **options: Any) -> Any:
    return tr.HSTUConfig.build(32, 2, 2, limit, dropout=0.0, time_feature="price", time_deviation=2.0, **options)


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "learns"])
def test_the_checks_hold_with_times(check: str) -> None:
    """Sessions without a price cannot be learned from, so that check is left out."""
    result = run_check(cell_maker(config, "clm"), check)
    assert result.passed, result


def model_of(features: list[Feature], time_feature: str) -> Any:
    torch.manual_seed(0)
    inputs = tr.TabularSequenceFeatures(features, TOTAL, d_output=16, masking="clm", continuous_projection=4)
    built = tr.HSTUConfig.build(16, 2, 1, TOTAL, initializer_range=0.3, time_feature=time_feature)
    return built.to_torch_model(inputs, tr.NextItemPredictionTask(weight_tying=True)).eval()


@pytest.mark.parametrize("time_feature", ["since", ""])
def test_a_model_reads_its_column_of_times(time_feature: str) -> None:
    """Beside its vectors: where those are told nothing of the column, the scores move with it only as times."""
    model = model_of(FEATURES, time_feature)
    items = torch.tensor([[4, 9, 7]])
    with torch.no_grad():
        model.inputs.projection.layers[0].weight[:, -4:] = 0  # the four values that come from the column
        near = model({"item_id": items, "since": gaps_of(0, 5, 5).float()})
        far = model({"item_id": items, "since": gaps_of(0, 5, 50_000).float()})
    moved = (near - far)[:, 3:].abs().max()
    assert moved > 1e-4 if time_feature else moved == 0


def test_a_column_of_times_that_is_not_there() -> None:
    batch = {"item_id": torch.tensor([[4, 9, 7]]), "since": torch.zeros(1, 3)}
    with pytest.raises(ValueError, match="time_feature 'clock' is none of the model's features, found item_id, since"):
        model_of(FEATURES, "clock")(batch)
    with pytest.raises(ValueError, match="time_feature 'item_id' must be a continuous feature of the events"):
        model_of(FEATURES, "item_id")(batch)
    block = tr.TransformerBlock(tr.HSTUConfig.build(16, 2, 1, TOTAL, time_feature="since"))
    with pytest.raises(ValueError, match="right behind the inputs"):
        block(torch.zeros(1, 3, 16))
    with pytest.raises(ValueError, match="hstu needs the times of the feature 'since'"):
        block.transformer(inputs_embeds=torch.zeros(1, 3, 16))


def test_blocks_without_times_are_given_none() -> None:
    assert not tr.TransformerBlock(tr.HSTUConfig.build(16, 2, 1, TOTAL)).reads_columns
    assert not tr.TransformerBlock(tr.GPT2Config.build(16, 2, 1, TOTAL)).reads_columns
    assert tr.TransformerBlock(tr.HSTUConfig.build(16, 2, 1, TOTAL, time_feature="since")).reads_columns


def test_a_model_by_settings_reads_the_times_that_preprocessing_made() -> None:
    since = Feature("since_previous", "continuous", mean=3.0, deviation=2.0)
    settings = tr.ModelSettings(architecture="hstu", d_model=16, n_head=2, n_layer=1)
    for features, deviation, name in (
        ([FEATURES[0], since], 2.0, "since_previous"),
        ([FEATURES[0], replace(since, deviation=0.0)], 1.0, "since_previous"),
        (FEATURES, 1.0, ""),
    ):
        (block,) = [part for part in tr.build_model(features, TOTAL, settings).modules() if isinstance(part, HSTU)]
        assert (block.config.time_feature, block.config.time_deviation) == (name, deviation)
        assert block.config.time_mean == (3.0 if name else 0.0)
    # Without side features there are no times either.
    alone = tr.build_model([FEATURES[0], since], TOTAL, settings.model_copy(update={"features": "ids"}))
    assert [feature.name for feature in alone.features] == ["item_id"]
