"""Replaced token detection: what is drawn, what is judged, and what is learned from it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import modeling as tr
from modeling.checks.learning import walks
from modeling.masking.replacement import draw, replace

Batch = dict[str, torch.Tensor]


def rtd(**arguments: Any) -> tr.ReplacementLanguageModeling:
    return tr.ReplacementLanguageModeling(2, reserved=3, **arguments)


def columns_of(items: torch.Tensor) -> Batch:
    """Side features that are functions of the item."""
    vectors = torch.stack([items, 2 * items], dim=-1).float()
    return {"item_id": items, "price": items * 10.0, "vector": vectors, "age": torch.ones(len(items))}


@pytest.fixture
def hidden() -> torch.Tensor:
    torch.manual_seed(0)
    items = torch.randint(3, 12, (40, 6))
    items[20:, 3:] = 0
    return rtd(mlm_probability=0.4).choose(items)


@pytest.fixture
def items(hidden: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    items = torch.randint(3, 12, (40, 6))
    items[20:, 3:] = 0
    return items


def scorer(hidden: torch.Tensor, classes: int = 30) -> Callable[[slice], torch.Tensor]:
    torch.manual_seed(1)
    scores = torch.randn(int(hidden.sum()), classes)
    scores[:, :3] = float("-inf")
    return lambda some: scores[some]


def test_draws_follow_the_softmax() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([[float("-inf"), 0.0, 1.0, 2.0]])
    drawn = draw(scores.expand(40_000, -1))
    share = torch.bincount(drawn, minlength=4) / 40_000
    # Four standard deviations of a share near one half, of 40,000 draws.
    torch.testing.assert_close(share, scores.softmax(1)[0], atol=0.01, rtol=0)
    assert share[0] == 0


@pytest.mark.parametrize("from_batch", [False, True])
def test_only_hidden_events_are_replaced(hidden: torch.Tensor, items: torch.Tensor, from_batch: bool) -> None:
    columns = columns_of(items)
    corrupted, replaced = replace(columns, "item_id", hidden, scorer(hidden), rtd(sample_from_batch=from_batch))
    assert torch.equal(corrupted["item_id"][~hidden], items[~hidden])
    assert torch.equal(replaced, corrupted["item_id"] != items)
    assert replaced.any()
    assert (corrupted["item_id"][hidden] >= 3).all()
    outside = corrupted["item_id"][hidden] >= 12
    assert outside.any() != from_batch  # the batch has items up to 11, the catalogue up to 29
    for name in ("price", "vector", "age"):
        assert corrupted[name] is columns[name]


def test_a_right_guess_is_no_replacement(hidden: torch.Tensor, items: torch.Tensor) -> None:
    sure = torch.nn.functional.one_hot(items[hidden], 30) * 1e4
    corrupted, replaced = replace(columns_of(items), "item_id", hidden, lambda some: sure[some], rtd())
    assert torch.equal(corrupted["item_id"], items)
    assert not replaced.any()


def test_a_whole_event_is_taken_from_the_batch(hidden: torch.Tensor, items: torch.Tensor) -> None:
    masking = rtd(sample_from_batch=True, use_batch_interaction=True)
    corrupted, replaced = replace(columns_of(items), "item_id", hidden, scorer(hidden), masking)
    expected = columns_of(corrupted["item_id"])
    assert replaced.any()
    for name in ("price", "vector"):
        assert torch.equal(corrupted[name], expected[name])


def test_chunks_do_not_change_what_is_drawn_from(
    hidden: torch.Tensor, items: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modeling.masking.replacement._AT_ONCE", 7 * 30)
    sure = torch.nn.functional.one_hot((items[hidden] + 1), 30) * 1e4
    corrupted, _ = replace(columns_of(items), "item_id", hidden, lambda some: sure[some], rtd())
    assert torch.equal(corrupted["item_id"], torch.where(hidden, items + 1, items))


def model_of(**arguments: Any) -> Any:
    torch.manual_seed(0)
    item = [tr.Feature("item_id", "categorical", 12, 3, True)]
    inputs = tr.TabularSequenceFeatures(item, 8, embedding_dim_default=16, masking="rtd", masking_arguments=arguments)
    config = tr.ElectraConfig.build(16, 2, 2, 8, dropout=0.0, initializer_range=0.02)
    return config.to_torch_model(inputs, tr.NextItemPredictionTask(weight_tying=True))


def loss_of(model: Any, batch: Batch) -> torch.Tensor:
    torch.manual_seed(3)
    return model(batch, training=True)["loss"]


@pytest.fixture
def sessions(sessions_of: Callable[..., Any]) -> Batch:
    found: Batch = sessions_of(32, 8, 2, seed=0).padded(torch.arange(32), 8)
    return found


def test_the_loss_is_the_weighted_sum(sessions: Batch) -> None:
    losses = {
        weights: loss_of(model_of(generator_loss_weight=weights[0], discriminator_loss_weight=weights[1]), sessions)
        for weights in ((1, 0), (0, 1), (2, 50))
    }
    torch.testing.assert_close(losses[2, 50], 2 * losses[1, 0] + 50 * losses[0, 1])
    # The generator alone is masked training: the same seed hides the same events.
    masked = model_of(discriminator_loss_weight=0)
    assert losses[0, 1] > 0
    torch.testing.assert_close(losses[1, 0], loss_of(masked, sessions))


@pytest.mark.parametrize("tied", [True, False])
def test_tied_or_not(sessions: Batch, tied: bool) -> None:
    model = model_of(tied_generator=tied, generator_loss_weight=0)
    loss_of(model, sessions).backward()
    own = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    generator = {name for name in own if ".body.blocks.1" in name}
    discriminator = {name for name in own if "detection.trunk" in name}
    # Without its own loss the generator learns from the discriminator's only where both are one.
    assert bool(generator) == tied
    assert bool(discriminator) != tied
    assert any("detection.judge" in name for name in own)
    assert model.inputs.item_table.weight.grad.abs().max() > 0  # the embeddings are shared in both cases


def test_the_discriminator_learns_to_judge() -> None:
    """An event that breaks its session's rule looks more replaced than the genuine ones of the same sessions."""
    altered = {"item_id": walks(256, 8, seed=1)}
    altered["item_id"][:, 1] = 3 + (altered["item_id"][:, 1] - 3 + 4) % 8  # a jump that no session makes

    def separated(model: Any) -> float:
        """How often the broken event has the higher logit: 1/2 of one who guesses."""
        with torch.no_grad():
            logits, events = model.eval().head.detection.logits(model.head.body, altered)
        genuine = events.clone()
        genuine[:, 1] = False
        return float((logits[:, 1, None] > logits).double()[genuine].mean())

    model = model_of(mlm_probability=0.3, discriminator_loss_weight=5)
    assert separated(model) < 0.7
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for step in range(600):
        model.train()({"item_id": walks(64, 8, seed=100 + step)}, training=True)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert separated(model) > 0.85


def test_saved_with_its_discriminator(sessions: Batch, tmp_path: Any) -> None:
    model = model_of(tied_generator=False, mlm_probability=0.3, sample_from_batch=True).eval()
    model.save(tmp_path)
    loaded = tr.Model.load(tmp_path)
    assert loaded.inputs.masking.config() == model.inputs.masking.config()
    torch.testing.assert_close(loss_of(loaded, sessions), loss_of(model, sessions))
    assert torch.equal(loaded(sessions)[:, 3:], model(sessions)[:, 3:])


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="sample_from_batch"):
        rtd(use_batch_interaction=True)
    with pytest.raises(ValueError, match="negative"):
        rtd(discriminator_loss_weight=-1)
    assert rtd(mlm_probability=0.37).mlm_probability == 0.37
