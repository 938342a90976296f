"""Permuted prediction: what is predicted, who sees whom, and where the answer is read."""

import pytest
import torch

import modeling as tr

ITEMS = torch.tensor(
    [[5, 6, 7, 8, 9, 10, 11, 12], [5, 6, 7, 0, 0, 0, 0, 0], [4, 2, 0, 0, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 0]]
)


def states_of(masking: tr.PermutationLanguageModeling, items: torch.Tensor = ITEMS) -> tr.SessionStates:
    return masking.train_states(torch.randn(*items.shape, 2), items)


def test_at_least_one_event_is_predicted_and_never_all() -> None:
    torch.manual_seed(0)
    masking = tr.PermutationLanguageModeling(2, reserved=3, plm_probability=0.5)
    chosen = masking.choose(ITEMS.repeat(300, 1)).view(300, 4, 8)
    count = chosen.sum(2)
    assert (count[:, :3] >= 1).all()
    assert (count < torch.tensor([8, 3, 2, 1])).all()
    assert not chosen[:, 2, 1].any()  # unknown: no target
    assert chosen[:, 0].any(0).all()  # every position in turn


def test_spans_have_the_given_share_and_length() -> None:
    torch.manual_seed(0)
    items = torch.full((400, 120), 5)
    for probability, longest in ((1 / 6, 5), (0.25, 3)):
        masking = tr.PermutationLanguageModeling(2, plm_probability=probability, max_span_length=longest)
        chosen = masking._spans(items)
        # The last stretch is cut off by the end of the session, hence the tolerance.
        assert chosen.float().mean().item() == pytest.approx(probability, rel=0.06)
        runs = torch.nn.functional.pad(chosen.int(), [1, 1]).diff(dim=1)
        size = (runs == -1).nonzero()[:, 1] - (runs == 1).nonzero()[:, 1]
        assert size.min() == 1
        # Two spans may touch where one stretch ends and the next begins.
        assert size.max() <= 2 * longest
        assert set(range(1, longest + 1)) <= set(size.tolist())


def test_who_sees_whom() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        states = states_of(tr.PermutationLanguageModeling(2, reserved=3, plm_probability=0.5))
        assert states.targets is not None
        assert states.visible is not None
        for row, targets in enumerate(states.targets):
            chosen = targets != 0
            visible = states.visible[row]
            assert visible[:, ~chosen].all()  # what is not predicted is seen by all
            assert not visible[~chosen][:, chosen].any()  # and sees nothing of what is predicted
            order = visible[chosen][:, chosen]
            assert not order.diagonal().any()  # nothing sees itself
            # A total order: of two, exactly one comes first; and how many one sees is its place.
            assert torch.equal(order | order.T, ~torch.eye(len(order), dtype=torch.bool))
            assert sorted(order.sum(1).tolist()) == list(range(len(order)))


def test_orders_differ_between_rows_and_draws() -> None:
    torch.manual_seed(0)
    masking = tr.PermutationLanguageModeling(2, permute_all=True)
    items = torch.arange(5, 11).repeat(50, 1)
    states = states_of(masking, items)
    assert states.targets is not None
    assert states.visible is not None
    assert torch.equal(states.targets, items)
    assert len({tuple(places.tolist()) for places in states.visible.sum(2)}) > 40
    alone = states_of(masking, torch.tensor([[5]]))
    assert alone.targets is not None
    assert alone.targets.tolist() == [[0]]


def test_the_last_event_alone() -> None:
    only = tr.PermutationLanguageModeling(2, reserved=3, train_on_last_item_seq_only=True)
    assert only.choose(ITEMS).nonzero().tolist() == [[0, 7], [1, 2]]
    often = tr.PermutationLanguageModeling(2, reserved=3, last_item_probability=1.0)
    assert often.choose(ITEMS)[:2].nonzero().tolist() == [[0, 7], [1, 2]]


def test_inference_reads_behind_the_last_event() -> None:
    states = tr.PermutationLanguageModeling(2).inference_states(
        torch.randn(2, 3, 2), torch.tensor([[5, 6, 7], [5, 0, 0]])
    )
    assert states.read.tolist() == [3, 1]
    assert states.visible is not None
    assert states.visible[0].tolist() == [[True, True, True, False]] * 4
    assert states.visible[1].tolist() == [[True, False, False, False]] * 4
    assert states.values.shape == (2, 4, 2)


@pytest.mark.parametrize("arguments", [{"plm_probability": 0}, {"plm_probability": 1.5}, {"max_span_length": 0}])
def test_arguments_are_checked(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        tr.PermutationLanguageModeling(2, **arguments)


def test_only_a_backbone_of_two_streams_takes_it() -> None:
    item = [tr.Feature("item_id", "categorical", 9, 3, True)]
    inputs = tr.TabularSequenceFeatures(item, 8, embedding_dim_default=16, masking="plm")
    with pytest.raises(ValueError, match=r"gpt2.*plm"):
        tr.SequentialBlock(inputs, tr.TransformerBlock(tr.GPT2Config.build(16, 2, 1, 8)))
    with pytest.raises(ValueError, match=r"GRU.*plm"):
        tr.SequentialBlock(inputs, tr.Block(torch.nn.GRU(16, 16, batch_first=True), 16))
