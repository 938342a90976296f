"""Which positions are predicted."""

import pytest
import torch

import modeling as tr
from modeling.masking.registry import masking_from


def padded(*sessions: list[int]) -> torch.Tensor:
    width = max(map(len, sessions))
    return torch.tensor([s + [0] * (width - len(s)) for s in sessions])


def test_causal_targets_are_the_following_items() -> None:
    masking = tr.CausalLanguageModeling(hidden_size=2, reserved=3)
    items = padded([5, 6, 7, 8], [9, 4], [3])
    states = masking.train_states(torch.randn(3, 4, 2), items)
    assert states.targets is not None
    assert states.targets.tolist() == [[6, 7, 8], [4, 0, 0], [0, 0, 0]]
    assert states.attend.tolist() == [[True, True, True], [True, True, False], [True, False, False]]


def test_causal_training_on_the_last_item_only() -> None:
    masking = tr.CausalLanguageModeling(hidden_size=2, reserved=3, train_on_last_item_seq_only=True)
    states = masking.train_states(torch.randn(3, 4, 2), padded([5, 6, 7, 8], [9, 4], [3]))
    assert states.targets is not None
    assert states.targets.tolist() == [[0, 0, 8], [4, 0, 0], [0, 0, 0]]


def test_null_and_unknown_items_are_no_targets() -> None:
    causal = tr.CausalLanguageModeling(hidden_size=2, reserved=3)
    states = causal.train_states(torch.randn(1, 4, 2), padded([5, 2, 1, 8]))
    assert states.targets is not None
    assert states.targets.tolist() == [[0, 0, 8]]
    masked = tr.MaskedLanguageModeling(hidden_size=2, reserved=3, mlm_probability=0.9)
    items = padded([5, 2, 1, 8]).repeat(200, 1)
    assert not masked.choose(items)[:, 1:3].any()


@pytest.mark.parametrize("probability", [0.0, 0.15, 0.5, 0.95])
def test_masked_training_hides_some_and_never_all(probability: float) -> None:
    torch.manual_seed(0)
    masking = tr.MaskedLanguageModeling(hidden_size=2, reserved=3, mlm_probability=probability)
    items = padded([5], [5, 6], [5, 6, 7], [5, 6, 7, 8, 9, 10], [2, 2], [2, 5]).repeat(300, 1)
    hidden = masking.choose(items)
    count, n = hidden.sum(1).view(300, 6), (items != 0).sum(1)[:6]
    assert not hidden[items == 0].any()
    assert (count[:, [1, 2, 3, 5]] >= 1).all()
    assert (count < n).all()  # the session of one event included
    assert (count[:, 4] == 0).all()  # nothing in it can be predicted
    # Each position of a long session is hidden in turn.
    assert hidden.view(300, 6, 6)[:, 3].any(0).all()


def test_the_last_event_alone_is_hidden_in_a_share_of_the_sessions() -> None:
    torch.manual_seed(0)
    items = padded([5], [5, 6], [5, 6, 7, 8], [5, 6, 2]).repeat(500, 1)
    masking = tr.MaskedLanguageModeling(2, reserved=3, mlm_probability=0.0, last_item_probability=0.5)
    hidden = masking.choose(items).view(500, 4, 4)
    assert not hidden[:, 0].any()
    assert (hidden[:, 1:].sum(2) == 1).all()
    # Half of the time for certain, and by chance in a quarter of the other half.
    assert hidden[:, 2, 3].float().mean().item() == pytest.approx(0.5 + 0.5 / 4, abs=0.08)
    assert not hidden[:, 3, 2].any()  # unknown: no target


def test_the_share_of_hidden_events_follows_the_probability() -> None:
    torch.manual_seed(0)
    items = torch.full((500, 100), 5)
    for probability in (0.1, 0.4):
        masking = tr.MaskedLanguageModeling(hidden_size=2, mlm_probability=probability)
        expected = 1 - (1 - probability) * 0.99  # one more event is hidden for certain
        assert masking.choose(items).float().mean().item() == pytest.approx(expected, abs=0.01)


def test_masked_inference_reads_behind_the_last_event() -> None:
    masking = tr.MaskedLanguageModeling(hidden_size=2, reserved=3)
    values = torch.randn(2, 3, 2)
    states = masking.inference_states(values, padded([5, 6, 7], [5]))
    assert states.read.tolist() == [3, 1]
    assert states.attend.tolist() == [[True] * 4, [True, True, False, False]]
    assert torch.equal(states.values[0, :3], values[0])
    assert torch.equal(states.answers(), masking.masked_item_embedding.expand(2, -1))
    assert states.targets is None


def test_masked_training_on_the_last_item_only() -> None:
    masking = tr.MaskedLanguageModeling(hidden_size=2, reserved=3, train_on_last_item_seq_only=True)
    states = masking.train_states(torch.randn(4, 4, 2), padded([5, 6, 7, 8], [9, 4], [3], [5, 6, 2]))
    assert states.targets is not None
    assert states.targets.tolist() == [[0, 0, 0, 8], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_all_positions_are_kept_where_other_tasks_need_them() -> None:
    masking = tr.CausalLanguageModeling(hidden_size=2, reserved=3)
    values, items = torch.randn(2, 4, 2), padded([5, 6, 7, 8], [9, 4])
    states = masking.train_states(values, items, whole=True)
    assert states.targets is not None
    assert torch.equal(states.values, values)
    assert states.targets.tolist() == [[6, 7, 8, 0], [4, 0, 0, 0]]


def test_names() -> None:
    assert tr.masking_registry["causal"] is tr.masking_registry["clm"] is tr.CausalLanguageModeling
    assert tr.masking_registry["masked"] is tr.masking_registry["mlm"] is tr.MaskedLanguageModeling
    assert tr.masking_registry["permutation"] is tr.masking_registry["plm"] is tr.PermutationLanguageModeling
    assert tr.masking_registry["replacement"] is tr.masking_registry["rtd"] is tr.ReplacementLanguageModeling
    with pytest.raises(ValueError, match=r"plmx.*clm"):
        masking_from("plmx", 4, 1)
    with pytest.raises(ValueError, match="mlm_probability"):
        masking_from("mlm", 4, 1, mlm_probability=1.0)
    with pytest.raises(ValueError, match="hidden_size=4"):
        masking_from(tr.CausalLanguageModeling(4), 8, 1)
    assert masking_from(tr.CausalLanguageModeling(4), 4, 3).reserved == 3
