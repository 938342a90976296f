"""Counts of pairs inside the model: what they add, what they weigh, and that they never make it worse."""

from pathlib import Path

import pytest
import torch

import modeling as tr
from common.errors import UserError
from modeling.baselines import TrainingWindow
from modeling.evidence.fitting import add_evidence
from modeling.evidence.module import ItemEvidence, merged
from modeling.evidence.pairs import count_pairs
from modeling.export.torchscript import export_torchscript, recommender
from modeling.schema import Feature

from .counting import sessions

ITEMS = 40
ITEM = Feature("item_id", "categorical", ITEMS, 3, item=True)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit
SETTINGS = tr.ModelSettings(d_model=8, n_head=2, n_layer=1, features="ids")


def evidence() -> ItemEvidence:
    """3 is followed by 4 (weight 2) and 5 (weight 1), 4 by 5 (weight 3); the event before counts half."""
    rows, columns = torch.tensor([3, 3, 4]), torch.tensor([4, 5, 5])
    return ItemEvidence.from_pairs(rows, columns, torch.tensor([2.0, 1.0, 3.0]), 6, depth=2, decay=0.5)


def walks(seed: int, count: int = 200) -> tr.Sessions:
    """Sessions that go round a circle of all items, from anywhere."""
    starts = torch.randint(ITEMS - 3, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return sessions(*([3 + (start + step) % (ITEMS - 3) for step in range(4)] for start in starts))


def test_the_last_items_add_to_the_scores_of_what_follows_them() -> None:
    items = torch.tensor([[3, 4, 0], [4, 3, 0], [5, 0, 0], [4, 4, 3], [1, 2, 0]])
    added = evidence().added(torch.zeros(5, 6), items)
    assert added.tolist() == [
        [0, 0, 0, 0, 1, 3.5],  # 4 says 5 by 3; 3, before it, half of its 2 for 4 and of its 1 for 5
        [0, 0, 0, 0, 2, 2.5],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 2, 2.5],  # what lies deeper than two events says nothing
        [0, 0, 0, 0, 0, 0],
    ]


def test_shares_of_an_item_are_one() -> None:
    ids = torch.tensor([[5, 4, 5, 0], [6, 6, 6, 6]])
    shares = torch.tensor([[1.0, 2.0, 3.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    own, total = merged(ids, shares, 9)
    assert (own.tolist(), total.tolist()) == ([[0, 4, 5], [6, 9, 9]], [[0, 2, 4], [10, 0, 0]])


def test_pairs_are_of_known_items_and_say_what_follows_and_what_is_alike() -> None:
    train = sessions([3, 4], [3, 4], [3, 5], [2, 4], [3, 3])
    pairs = count_pairs(TrainingWindow(train, "item_id", 6, 3))
    found = {
        (a, b): k for a, b, k in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.kinds.tolist(), strict=True)
    }
    assert set(found) == {(3, 4), (4, 3), (3, 5), (5, 3)}
    # 3 was followed four times, twice by 4; five more are assumed.
    assert found[3, 4][0] == pytest.approx(2 / 9)
    assert found[4, 3][0] == 0
    # Sessions with 3, 4 and 5: 4, 3 and 1, each damped by 20.
    assert found[4, 3][1] == pytest.approx(2 / (24 * 23) ** 0.5)
    assert found[3, 5][1] == pytest.approx(1 / (24 * 21) ** 0.5)


@pytest.mark.parametrize("architecture", ["gpt2", "xlnet"])
def test_a_model_that_learned_nothing_ranks_as_counts_do(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = SETTINGS.model_copy(update={"architecture": architecture, "masking": None})
    model = tr.build_model([ITEM], 4, settings).eval()
    report = add_evidence(model, walks(0), walks(1), "last")
    assert report is not None
    assert report["before"] < 0.5
    assert report["valid"]["recall@10"] == 1
    found = tr.ranks(model, walks(2), ITEM, 4, "last")
    assert (found == 1).float().mean() > 0.9
    # Saved, loaded, exported: the same answers.
    model.save(tmp_path / "model")
    again = tr.Model.load(tmp_path / "model")
    assert torch.equal(tr.ranks(again, walks(2), ITEM, 4, "last"), found)
    export_torchscript(model, tmp_path / "model.pt", "last")
    served = torch.jit.load(str(tmp_path / "model.pt"))
    past = {"item_id": torch.tensor([[7, 8, 9], [30, 31, 0]])}
    assert served(past, 1)[1].tolist() == [[10], [32]]
    scores, ids = recommender(model, "last")(past, 5)
    assert torch.allclose(scores, model(past, exclude="last").gather(1, ids), atol=1e-5)
    # Candidates keep their evidence.
    assert served(past, 1, None, torch.tensor([20, 10, 32]))[1].tolist() == [[10], [32]]


@pytest.mark.parametrize(
    ("train", "valid"),
    [
        (sessions(*[[3, 4, 5]] * 20), sessions(*[[3, 7]] * 20)),  # what they say is wrong
        (sessions(*[[3, 4, 5]] * 20), sessions(*[[6, 7]] * 20)),  # they say nothing
        (sessions([3], [4]), walks(1)),  # there are none
        (walks(0), sessions([3], [1, 2])),  # there is nothing to measure
    ],
)
def test_counts_that_do_not_help_are_left_out(train: tr.Sessions, valid: tr.Sessions) -> None:
    torch.manual_seed(0)
    model = tr.build_model([ITEM], 4, SETTINGS).eval()
    model.evidence = evidence()
    assert add_evidence(model, train, valid, "last") is None
    assert model.evidence is None


def test_training_does_not_see_evidence() -> None:
    torch.manual_seed(0)
    model = tr.build_model([ITEM], 4, SETTINGS).eval()
    batch = {"item_id": torch.tensor([[7, 8, 9, 10], [3, 4, 5, 0]])}
    before, scores = model(batch, training=True)["loss"], model(batch)
    add_evidence(model, walks(0), walks(1), "last")
    assert torch.equal(model(batch, training=True)["loss"], before)
    assert (model(batch) >= scores).all()
    assert not torch.equal(model(batch), scores)
    tested = model(batch, testing=True)["predictions"]
    assert torch.equal(tested, model({"item_id": torch.tensor([[7, 8, 9], [3, 4, 0]])}))


def test_a_saved_model_whose_evidence_does_not_fit_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tr.build_model([ITEM], 4, SETTINGS).eval()
    add_evidence(model, walks(0), walks(1), "last")
    model.save(tmp_path)
    description = (tmp_path / "model.json").read_text()
    assert model.evidence is not None
    changed = description.replace(f'"width": {model.evidence.width}', '"width": 7777')
    assert changed != description
    (tmp_path / "model.json").write_text(changed)
    with pytest.raises(UserError, match="cannot be loaded"):
        tr.Model.load(tmp_path)
