"""What a client may ask for besides its events: how many items, without which, and among which."""

import numpy as np
import pytest

from common.errors import UserError

LOWEST = float(np.finfo(np.float32).min)


@pytest.fixture(scope="module")
def few(sample):
    """A dozen sessions."""
    keep = set(list(dict.fromkeys(sample["session_id"]))[:12])
    rows = [row for row, session in enumerate(sample["session_id"]) if session in keep]
    return {name: [values[row] for row in rows] for name, values in sample.items()}


def seen(events):
    found = {}
    for session, item in zip(events["session_id"], events["item_id"], strict=True):
        found.setdefault(session, set()).add(item)
    return found


def test_fewer_items_are_the_first_of_all(client, few):
    everything, three = client.recommend(few), client.recommend(few, top_k=3)
    assert [len(items) for items in three.item_id] == [3] * 12
    assert three.item_id == [items[:3] for items in everything.item_id]
    np.testing.assert_allclose(three.score, everything.score[:, :3], rtol=1e-5)


def test_items_of_the_session_are_left_out(client, few):
    struck = client.recommend(few, exclude_seen=True)
    for session, items, before in zip(struck.session_id, struck.item_id, client.recommend(few).item_id, strict=True):
        assert not set(items) & seen(few)[session]
        left = [item for item in before if item not in seen(few)[session]]
        assert items[: len(left)] == left
    assert any(
        set(items) & seen(few)[s] for s, items in zip(struck.session_id, client.recommend(few).item_id, strict=True)
    )


def test_listed_items_are_left_out_for_every_session(client, few):
    before = client.recommend(few)
    unwanted = sorted({items[0] for items in before.item_id})
    after = client.recommend(few, excluded=[*unwanted, "no such item"])
    for items, old in zip(after.item_id, before.item_id, strict=True):
        assert not set(items) & set(unwanted)
        left = [item for item in old if item not in unwanted]
        assert items[: len(left)] == left


def test_only_candidates_are_ranked_with_the_scores_they_have_among_all(client, few):
    before = client.recommend(few)
    wanted = sorted({item for items in before.item_id for item in items[3:4]})
    after = client.recommend(few, candidates=[*wanted, "no such item"])
    # This model never recommends the item that the visitor looks at.
    last = dict(zip(few["session_id"], few["item_id"], strict=True))
    for session, items, scores, old, old_scores in zip(
        after.session_id, after.item_id, after.score, before.item_id, before.score, strict=True
    ):
        ranked = [item for item, score in zip(items, scores, strict=True) if score > LOWEST]
        assert set(ranked) == set(wanted) - {last[session]}
        assert [item for item in ranked if item in old] == [item for item in old if item in wanted]
        known = dict(zip(old, old_scores, strict=True))
        for item, score in zip(items, scores, strict=True):
            if item in known and score > LOWEST:
                assert score == pytest.approx(known[item], rel=1e-4, abs=1e-5)


def test_options_together(client, few):
    wanted = sorted({item for items in client.recommend(few).item_id for item in items})
    found = client.recommend(few, top_k=4, exclude_seen=True, excluded=wanted[:3], candidates=wanted)
    for session, items, scores in zip(found.session_id, found.item_id, found.score, strict=True):
        ranked = {item for item, score in zip(items, scores, strict=True) if score > LOWEST}
        assert ranked <= set(wanted[3:]) - seen(few)[session]
        assert len(items) == 4


def test_what_is_out_of_range_is_refused(client, few):
    with pytest.raises(UserError, match="top_k"):
        client.recommend(few, top_k=21)
    with pytest.raises(UserError, match="'excluded' has 10001 values: send at most 10000"):
        client.recommend(few, excluded=["sku-00001"] * 10_001)
