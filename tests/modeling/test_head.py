"""Heads and models: several tasks, several heads, weights, and who sees which part of a session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import modeling as tr
from modeling.backbones.precision import double

Batch = dict[str, torch.Tensor]
FEATURES = [
    tr.Feature("item_id", "categorical", 30, 3, True),
    tr.Feature("category", "categorical", 7, 3),
    tr.Feature("price", "continuous"),
]


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(0)
    n = torch.tensor([7, 1, 3, 5, 2])
    padding = torch.arange(7) >= n[:, None]
    return {
        "item_id": torch.randint(3, 30, (5, 7)).masked_fill(padding, 0),
        "category": torch.randint(3, 7, (5, 7)).masked_fill(padding, 0),
        "price": torch.randn(5, 7).masked_fill(padding, 0),
        "bought": torch.tensor([1.0, 0, 1, 0, 1]),
        "spent": torch.tensor([3.0, 0, 5, 0, 1]),
    }


def body_of(masking: str | None, **options: Any) -> Any:
    torch.manual_seed(1)
    inputs = tr.TabularSequenceFeatures(FEATURES, 8, d_output=16, masking=masking, **options)
    architecture = {"clm": tr.GPT2Config, "mlm": tr.BertConfig, "plm": tr.XLNetConfig, None: tr.GPT2Config}[masking]
    config = architecture.build(16, 2, 1, 8, dropout=0.0, initializer_range=0.3)
    return tr.SequentialBlock(inputs, tr.TransformerBlock(config, masking=inputs.masking))


def multi(masking: str, **options: Any) -> Any:
    tasks = [
        tr.NextItemPredictionTask(weight_tying=True),
        tr.BinaryClassificationTask("bought"),
        tr.RegressionTask("spent"),
    ]
    return tr.Model(tr.Head(body_of(masking), tasks, **options)).eval()


def names(model: Any) -> list[str]:
    return [task.task_name for task in model.head.tasks]


@pytest.mark.parametrize("masking", ["clm", "mlm", "plm"])
def test_other_tasks_see_the_whole_session_and_the_next_item_does_not(masking: str, batch: Batch) -> None:
    model = multi(masking)
    next_item, bought, _ = names(model)
    with torch.no_grad():
        tested, served = model(batch, testing=True), model(batch)
        past = {name: values[:1, :6] if values.dim() > 1 else values[:1] for name, values in batch.items()}
        shorter = model(past)
    assert set(tested["predictions"]) == set(served) == set(names(model))
    torch.testing.assert_close(tested["predictions"][bought], served[bought])
    torch.testing.assert_close(tested["predictions"][next_item][:1], shorter[next_item])
    assert (tested["predictions"][bought][0] - shorter[bought][0]).abs() > 1e-4
    assert tested["labels"][bought].tolist() == batch["bought"].tolist()
    assert tested["labels"][next_item].tolist() == [
        batch["item_id"][r, n - 1] if n > 1 else 0 for r, n in enumerate([7, 1, 3, 5, 2])
    ]


@pytest.mark.parametrize("masking", ["clm", "mlm"])
def test_other_tasks_are_served_alike_alone_and_padded(masking: str, batch: Batch) -> None:
    model = multi(masking).double()
    _, bought, spent = names(model)
    with torch.no_grad():
        together = model(batch)
        for row, n in enumerate([7, 1, 3, 5, 2]):
            alone = model(
                {name: v[row : row + 1, :n] if v.dim() > 1 else v[row : row + 1] for name, v in batch.items()}
            )
            for name in (bought, spent):
                torch.testing.assert_close(together[name][row : row + 1], alone[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_are_weighted_and_reduced(reduction: str, batch: Batch) -> None:
    weights = [1.0, 2.0, 0.5]
    model = multi("clm", task_weights=weights, loss_reduction=reduction)
    targets = {name: batch[name] for name in ("bought", "spent")}
    each = model.head.losses({name: batch[name] for name in model.feature_names}, targets)
    weighted = torch.stack([each[name][0] * weight for name, weight in zip(names(model), weights, strict=True)])
    expected = {"mean": weighted.mean(), "sum": weighted.sum(), "none": weighted}[reduction]
    result = model(batch, training=True)
    torch.testing.assert_close(result["loss"], expected)
    assert result["targets"] == (6 + 0 + 2 + 4 + 1) + 5 + 5


def test_targets_are_taken_from_the_batch_or_given(batch: Batch) -> None:
    model = tr.Model(tr.Head(body_of(None), tr.BinaryClassificationTask("bought"))).eval()
    inside = model(batch, training=True)["loss"]
    apart = {name: values for name, values in batch.items() if name != "bought"}
    torch.testing.assert_close(model(apart, batch["bought"], training=True)["loss"], inside)
    torch.testing.assert_close(model(apart, {"bought": batch["bought"]}, training=True)["loss"], inside)
    with pytest.raises(ValueError, match="needs the target column 'bought'"):
        model(apart, training=True)
    assert model(apart).shape == (5,)
    with pytest.raises(ValueError, match="by name: bought, spent"):
        multi("clm")(apart, batch["bought"], training=True)


def test_blocks_before_the_tasks(batch: Batch, tmp_path: Path) -> None:
    model = multi("clm", task_blocks=tr.MLPBlock([12]))
    blocks = [task.task_block for task in model.head.tasks]
    assert len(blocks) == 3
    first, second, _ = (block.layers[0].weight for block in blocks)
    assert first.shape == (12, 16)
    assert not torch.equal(first, second)  # each task has its own
    named = multi("clm", task_blocks={"bought/binary_classification_task": tr.MLPBlock([4])})
    assert [block.output_dim for task in named.head.tasks if (block := task.task_block) is not None] == [4]
    own = tr.BinaryClassificationTask("bought", task_block=tr.MLPBlock([5]))
    both = tr.Head(body_of(None), own, task_blocks=tr.MLPBlock([12]))
    assert [block.output_dim for block in both.task.task_block.blocks] == [12, 5]
    assert tr.Model(both).eval()(batch).shape == (5,)
    with pytest.raises(ValueError, match="'no_such'"):
        multi("clm", task_blocks={"no_such": tr.MLPBlock([4])})
    model.save(tmp_path)
    with torch.no_grad():
        for name, value in tr.Model.load(tmp_path)(batch).items():
            torch.testing.assert_close(value, model(batch)[name])


def test_several_heads_have_bodies_of_their_own(batch: Batch, tmp_path: Path) -> None:
    first = tr.Head(body_of("clm"), tr.NextItemPredictionTask(weight_tying=True))
    second = tr.Head(body_of(None), [tr.BinaryClassificationTask("bought"), tr.RegressionTask("spent")])
    model = tr.Model(first, second, head_weights=[1.0, 3.0]).eval()
    with torch.no_grad():
        found = model(batch)
        assert len(found) == 3
        one, other = (tr.Model(head).eval()(batch, training=True)["loss"] for head in (first, second))
        torch.testing.assert_close(model(batch, training=True)["loss"], (one + 3 * other) / 2)
        model.save(tmp_path)
        for name, value in tr.Model.load(tmp_path)(batch).items():
            torch.testing.assert_close(value, found[name])
    assert model.head is first
    with pytest.raises(ValueError, match="names of their own"):
        tr.Model(second, tr.Head(body_of(None), tr.RegressionTask("spent")))


@pytest.mark.parametrize("kind", ["codes", "numbers"])
def test_sessions_without_an_item_id(kind: str, batch: Batch) -> None:
    """Other codes tell how long a session is; of numbers alone every position is an event."""
    torch.manual_seed(1)
    inputs = tr.TabularSequenceFeatures(FEATURES[1:] if kind == "codes" else FEATURES[2:], 5, d_output=16)
    transformer = tr.TransformerBlock(tr.BertConfig.build(16, 2, 1, 8, dropout=0.0, initializer_range=0.3))
    head = tr.Head(tr.SequentialBlock(inputs, transformer), tr.BinaryClassificationTask("bought"))
    model = tr.Model(head).eval().double()
    with torch.no_grad(), double():
        together = model(batch)
        assert torch.isfinite(model(batch, training=True)["loss"])
        if kind == "codes":
            for row, n in enumerate([7, 1, 3, 5, 2]):
                recent = {name: batch[name][row : row + 1, max(0, n - 4) : n] for name in ("category", "price")}
                torch.testing.assert_close(together[row : row + 1], model(recent), rtol=1e-9, atol=1e-9)


def test_tasks_follow_the_tags_of_the_schema(batch: Batch) -> None:
    schema = tr.Schema(
        [
            tr.schema.ColumnSchema("bought", tags=[tr.Tags.BINARY_CLASSIFICATION]),
            tr.schema.ColumnSchema("spent", tags=[tr.Tags.REGRESSION]),
        ]
    )
    head = tr.Head.from_schema(schema, body_of(None), task_weight_dict={"spent": 0.1})
    assert head.target_names == ["bought", "spent"]
    assert head.task_weights == [1.0, 0.1]
    assert torch.isfinite(tr.Model(head)(batch, training=True)["loss"])
    with pytest.raises(ValueError, match="no target"):
        tr.Head.from_schema(tr.Schema([]), body_of(None))


def test_best_items_with_exclusions_and_candidates(batch: Batch) -> None:
    model = tr.Model(tr.Head(body_of("clm"), tr.NextItemPredictionTask(weight_tying=True))).eval()
    with torch.no_grad():
        scores = model(batch)
        top, ids = model(batch, top_k=4)
        torch.testing.assert_close(top, scores.gather(1, ids))
        assert torch.equal(ids, scores.topk(4).indices)
        unseen = model(batch, top_k=27, exclude="seen")[1]
        for row, session in zip(unseen, batch["item_id"], strict=True):
            left = set(range(3, 30)) - set(session.tolist())
            assert set(row.tolist()) - {0} == left
        assert not torch.isin(model(batch, top_k=27, excluded=torch.tensor([4, 9]))[1], torch.tensor([4, 9])).any()
        only = model(batch, top_k=3, candidates=torch.tensor([5, 8]))[1]
        assert [set(row.tolist()) for row in only] == [{0, 5, 8}] * 5
        model.top_k = 2
        assert model(batch)[1].tolist() == ids[:, :2].tolist()
    with pytest.raises(ValueError, match="exclude must be one of"):
        model(batch, exclude="sen")


@pytest.mark.parametrize("masking", ["clm", "mlm", "plm"])
def test_every_event_may_be_tested_each_from_its_past(masking: str, batch: Batch) -> None:
    options = {"eval_on_last_item_seq_only": False}
    body = body_of(masking, masking_arguments=options)
    model = tr.Model(tr.Head(body, tr.NextItemPredictionTask(weight_tying=True))).eval().double()
    with torch.no_grad(), double():
        tested = model(batch, testing=True)
        expected, labels = [], []
        for row, n in enumerate([7, 1, 3, 5, 2]):
            for cut in range(1, n):
                past = {name: v[row : row + 1, :cut] for name, v in batch.items() if v.dim() > 1}
                expected.append(model(past))
                labels.append(int(batch["item_id"][row, cut]))
    assert tested["labels"].tolist() == labels
    torch.testing.assert_close(tested["predictions"], torch.cat(expected), rtol=1e-9, atol=1e-9)


def test_ragged_batches(batch: Batch) -> None:
    model = tr.Model(tr.Head(body_of("clm"), tr.NextItemPredictionTask(weight_tying=True))).eval()
    real = batch["item_id"] != 0
    ragged = {f"{name}__values": batch[name][real] for name in ("item_id", "category", "price")}
    offsets = torch.nn.functional.pad(real.sum(1).cumsum(0), [1, 0])
    ragged |= {name.replace("values", "offsets"): offsets for name in ragged}
    with torch.no_grad():
        torch.testing.assert_close(model(ragged), model(batch))


def test_sessions_may_be_cut_shorter(batch: Batch) -> None:
    head = tr.Head(body_of("clm"), tr.NextItemPredictionTask(weight_tying=True))
    model, whole = tr.Model(head, max_sequence_length=4).eval(), tr.Model(head).eval()
    recent = {name: values[:1, 4:7] for name, values in batch.items() if values.dim() > 1}
    with torch.no_grad():
        torch.testing.assert_close(model(batch)[:1], whole(recent))
    with pytest.raises(ValueError, match="from 2 to the inputs' 8"):
        tr.Model(head, max_sequence_length=9)


def test_fit_learns_and_evaluate_measures(sessions_of: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    item = [tr.Feature("item_id", "categorical", 11, 3, True)]
    inputs = tr.TabularSequenceFeatures(item, 8, embedding_dim_default=32, masking="clm")
    config = tr.GPT2Config.build(32, 2, 1, 8, dropout=0.0, initializer_range=0.02)
    metrics = [tr.NDCGAt(top_ks=[1, 4]), tr.RecallAt(top_ks=[1])]
    task = tr.NextItemPredictionTask(weight_tying=True, metrics=metrics)
    model = config.to_torch_model(inputs, task)
    train, test = sessions_of(400, 8, 2, seed=0), sessions_of(80, 8, 2, seed=1)
    batches = [columns for _, columns in train.batches(32, 8)]
    held_out = [columns for _, columns in test.batches(32, 8)]
    before = model.evaluate(held_out)
    assert set(before) == {"eval_/next-item/ndcg_at_1", "eval_/next-item/ndcg_at_4", "eval_/next-item/recall_at_1"}
    losses = model.fit(batches, num_epochs=20, learning_rate=0.01, verbose=False)
    assert len(losses) == 20
    assert losses[-1] < losses[0] / 2
    after = model.evaluate(held_out)
    assert after["eval_/next-item/recall_at_1"] > 0.9 > before["eval_/next-item/recall_at_1"]
    # Evaluation is without dropout and gradients, forgets the batches before it, and leaves the mode as it was.
    assert model.train().evaluate(held_out) == after
    assert model.training
    ranks = tr.ranks(model.eval(), test, item[0], 8)
    assert after["eval_/next-item/recall_at_1"] == pytest.approx(float(tr.RecallAt([1]).from_ranks(ranks)[0]))


def test_contradictions_are_refused() -> None:
    task = tr.NextItemPredictionTask()
    with pytest.raises(ValueError, match="needs an objective"):
        tr.Head(body_of(None), task)
    with pytest.raises(ValueError, match="loss_reduction"):
        tr.Head(body_of("clm"), task, loss_reduction="max")
    with pytest.raises(ValueError, match="1 tasks and 2 task_weights"):
        tr.Head(body_of("clm"), task, task_weights=[1, 2])
    with pytest.raises(ValueError, match="names of their own"):
        tr.Head(body_of("clm"), [tr.NextItemPredictionTask(), tr.NextItemPredictionTask()])
    with pytest.raises(ValueError, match="begin with an input module"):
        tr.Head(tr.SequentialBlock(tr.MLPBlock([4])), task)
    with pytest.raises(ValueError, match="needs a head"):
        tr.Model()


def test_towers_side_by_side(tmp_path: Path) -> None:
    """Two towers over features of the visitor and of the shop, joined by a block: no sequence at all."""
    torch.manual_seed(0)
    visitor = [
        tr.Feature("country", "categorical", 9, 3, sequence=False),
        tr.Feature("age", "continuous", sequence=False),
    ]
    shop = [tr.Feature("floor", "categorical", 5, 3, sequence=False)]
    towers = [
        tr.TabularFeatures(features, aggregation="concat") >> tr.MLPBlock([width]) >> tr.AsTabular(name)
        for name, features, width in (("visitor", visitor, 8), ("shop", shop, 4))
    ]
    body = tr.MergeTabular(*towers, aggregation="concat") >> tr.MLPBlock([6])
    model = tr.Model(tr.Head(body, [tr.BinaryClassificationTask("bought"), tr.RegressionTask("spent")])).eval()
    assert body.blocks[1].layers[0].in_features == 12
    batch = {
        "country": torch.tensor([3, 4, 8, 5]),
        "age": torch.tensor([0.1, -1.0, 0.4, 2.0]),
        "floor": torch.tensor([3, 4, 4, 3]),
        "bought": torch.tensor([1.0, 0, 0, 1]),
        "spent": torch.tensor([5.0, 0, 0, 2]),
    }
    with torch.no_grad():
        before = model(batch)
    assert {name: value.shape for name, value in before.items()} == dict.fromkeys(names(model), (4,))
    losses = model.fit([batch], num_epochs=60, learning_rate=0.02, verbose=False)
    assert losses[-1] < losses[0] / 4
    found = model.evaluate([batch])
    assert found["eval_/bought/binary_classification_task/accuracy"] == 1
    model.save(tmp_path)
    with torch.no_grad():
        for name, value in tr.Model.load(tmp_path)(batch).items():
            torch.testing.assert_close(value, model(batch)[name])
            assert not torch.equal(value, before[name])
