"""The simulated shop: its events follow the law that it states, and no ranking beats its optimum."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from preprocessing.shop import Shop, ShopSettings, build_shop, next_item_probabilities, optimum, simulate, write_events
from preprocessing.shop.law import BUY, CART, VIEW, draw_next_items
from preprocessing.shop.oracle import expected_gains, prefixes_of, realised_gains

SMALL = ShopSettings(seed=3, items=120, categories=6, sessions=4_000, days=10)


@pytest.fixture(scope="module")
def shop():
    return build_shop(SMALL)


@pytest.fixture(scope="module")
def events():
    return simulate(SMALL)


def tiny_shop(mixture=(0.5, 0.3, 0.1, 0.1)):
    """Three items; item i goes to i+1 after a view, to i+2 after a cart or a buy, and i+2 follows a step later."""
    here = np.arange(3)[:, None]
    return Shop(
        item_ids=np.array(["a", "b", "c"]),
        category=np.array([0, 0, 1]),
        price=np.ones(3),
        popularity=np.array([0.6, 0.3, 0.1]),
        companions=np.stack([(here + 1) % 3, (here + 2) % 3, (here + 2) % 3]),
        companion_weights=np.ones(1),
        mixture=np.array(mixture),
        event_types=np.full((3, 3), 1 / 3),
    )


def test_law_of_three_items_by_hand():
    items = np.array([[0, 1, -1], [0, 1, -1], [0, -1, -1], [-1, -1, -1], [0, 2, 2]])
    kinds = np.array([[VIEW, VIEW, -1], [VIEW, CART, -1], [BUY, -1, -1], [-1, -1, -1], [CART, VIEW, VIEW]])
    # Of the dominant category {a, b}: 2/3 and 1/3 by popularity; {c} alone: 1.
    by_hand = [
        # a, b viewed: b goes to c (0.5), c follows a (0.3), category 0 (0.1), popularity (0.1)
        [0.1 * 2 / 3 + 0.06, 0.1 / 3 + 0.03, 0.5 + 0.3 + 0.01],
        # b put into the cart: b goes to a (0.5), c still follows a (0.3)
        [0.5 + 0.1 * 2 / 3 + 0.06, 0.1 / 3 + 0.03, 0.3 + 0.01],
        # one event: the last item takes the weight of the one before it; a bought goes to c (0.8)
        [0.1 * 2 / 3 + 0.06, 0.1 / 3 + 0.03, 0.8 + 0.01],
        # nothing yet: popularity
        [0.6, 0.3, 0.1],
        # a, c, c: c viewed goes to a (0.5), b follows c (0.3), category 1 has most events: c (0.1)
        [0.5 + 0.06, 0.3 + 0.03, 0.1 + 0.01],
    ]
    np.testing.assert_allclose(next_item_probabilities(tiny_shop(), items, kinds), by_hand, atol=1e-12)


def test_dominant_category_of_a_tie_is_the_latest():
    shop = tiny_shop(mixture=(0.0, 0.0, 1.0, 0.0))
    chance = next_item_probabilities(shop, np.array([[0, 2], [2, 0]]), np.full((2, 2), VIEW))
    np.testing.assert_allclose(chance, [[0, 0, 1], [2 / 3, 1 / 3, 0]], atol=1e-12)


def test_optimum_of_three_items_by_hand():
    # Session 8 views a, b and then meets c (chance 0.81, rank 1); session 5 buys a and then meets a
    # (chances 0.1267, 0.0633, 0.81: rank 2); session 6 has one event and no target.
    table = pa.table(
        {
            "session_id": [8, 5, 8, 6, 5, 8],
            "item_id": ["a", "a", "b", "c", "a", "c"],
            "time": pa.array([1, 2, 3, 4, 5, 6], pa.timestamp("ms")),
            "event_type": ["view", "buy", "view", "view", "view", "buy"],
        }
    )
    second = 1 / np.log2(3)
    got = optimum(tiny_shop(), table, ks=(1, 2))
    assert got["sessions"] == 2
    assert got["recall@1"] == 0.5
    assert got["recall@2"] == 1.0
    assert got["ndcg@2"] == pytest.approx((1 + second) / 2)
    assert got["mrr@2"] == pytest.approx(0.75)
    high, low = 0.81, 0.1 * 2 / 3 + 0.06
    assert got["expected_recall@1"] == pytest.approx(high)
    assert got["expected_ndcg@2"] == pytest.approx(high + low * second)
    assert got["expected_mrr@2"] == pytest.approx(high + low / 2)
    # Exactly the sessions that are asked for, whatever their order in the table.
    assert optimum(tiny_shop(), table, session_ids=[8], ks=(2,))["ndcg@2"] == 1.0
    assert optimum(tiny_shop(), table.slice(0).take([5, 4, 3, 2, 1, 0]), ks=(1, 2)) == got


def test_ties_count_against_the_target():
    gains = realised_gains(np.array([[1.0, 1.0, 0.0]]), np.array([0]), ks=(1, 2))
    assert gains["recall@1"][0] == 0
    assert gains["mrr@2"][0] == 0.5


def test_same_seed_same_events_other_seed_other_events(events):
    assert simulate(SMALL).equals(events)
    assert not simulate(replace(SMALL, seed=4)).equals(events)


def test_law_comes_from_the_settings_and_not_from_the_amount_of_events(shop):
    again = build_shop(replace(SMALL, sessions=10, days=1, integer_ids=True))
    items, kinds = np.array([[5, 17, 60]]), np.array([[VIEW, BUY, CART]])
    np.testing.assert_array_equal(
        next_item_probabilities(shop, items, kinds), next_item_probabilities(again, items, kinds)
    )


def test_probabilities_are_whole_positive_and_of_the_prefix_only(shop, events):
    prefixes = prefixes_of(shop, events)
    chance = next_item_probabilities(shop, prefixes.items, prefixes.event_types)
    assert chance.shape == (prefixes.target.size, SMALL.items)
    assert chance.dtype == np.float64
    assert chance.min() > 0
    np.testing.assert_allclose(chance.sum(axis=1), 1.0, atol=1e-12)
    # Neither the rest of the batch nor the padding matters.
    longest = np.argmax((prefixes.items >= 0).sum(axis=1))
    for row in (0, 1, longest):
        real = prefixes.items[row] >= 0
        alone = next_item_probabilities(shop, prefixes.items[[row]][:, real], prefixes.event_types[[row]][:, real])
        np.testing.assert_allclose(alone[0], chance[row], atol=1e-15)


def test_the_event_type_and_the_order_change_the_law(shop):
    items = np.array([[5, 17], [5, 17], [5, 17], [17, 5]])
    kinds = np.array([[VIEW, VIEW], [VIEW, CART], [VIEW, BUY], [VIEW, VIEW]])
    viewed, cart, buy, turned = next_item_probabilities(shop, items, kinds)
    np.testing.assert_array_equal(cart, buy)
    assert np.abs(viewed - cart).sum() / 2 > 0.3
    assert np.abs(viewed - turned).sum() / 2 > 0.3


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_continuations_of_a_prefix_have_the_frequencies_of_the_law(shop, length):
    rng = np.random.default_rng(length)
    items, kinds = rng.integers(0, SMALL.items, (1, length)), rng.integers(0, 3, (1, length))
    draws = 200_000
    drawn = draw_next_items(shop, items.repeat(draws, axis=0), kinds.repeat(draws, axis=0), rng)
    expected = next_item_probabilities(shop, items, kinds)[0] * draws
    assert expected.min() > 5  # enough in each cell for the chi-square approximation
    statistic = ((np.bincount(drawn, minlength=SMALL.items) - expected) ** 2 / expected).sum()
    # Chi-square with n-1 degrees of freedom has mean n-1 and variance 2(n-1): six standard deviations above.
    freedom = SMALL.items - 1
    assert statistic < freedom + 6 * np.sqrt(2 * freedom)


def test_targets_of_simulated_sessions_follow_the_law(shop, events):
    prefixes = prefixes_of(shop, events)
    chance = next_item_probabilities(shop, prefixes.items, prefixes.event_types)
    for name, realised in realised_gains(chance, prefixes.target).items():
        expected = expected_gains(chance, chance)[name]
        error = realised.std() / np.sqrt(realised.size)
        assert abs(realised.mean() - expected.mean()) < 4 * error, name
    # The log-likelihood ratio of a law that ignores event types would not average to what the true law predicts.
    others = prefixes.event_types.copy()
    others[others >= 0] = VIEW
    blind = next_item_probabilities(shop, prefixes.items, others)
    row = np.arange(prefixes.target.size)
    gain = np.log(chance[row, prefixes.target] / blind[row, prefixes.target])
    predicted = (chance * np.log(chance / blind)).sum(axis=1)
    assert predicted.mean() > 0.1
    assert abs(gain.mean() - predicted.mean()) < 4 * gain.std() / np.sqrt(gain.size)


def test_no_other_ranking_has_a_higher_expectation(shop, events):
    prefixes = prefixes_of(shop, events)
    chance = next_item_probabilities(shop, prefixes.items, prefixes.event_types)
    best = expected_gains(chance, chance)
    rng = np.random.default_rng(0)
    last = prefixes.items[np.arange(len(chance)), (prefixes.items >= 0).sum(axis=1) - 1]
    counts = np.zeros((SMALL.items, SMALL.items))
    np.add.at(counts, (last, prefixes.target), 1.0)  # even counted on the very targets
    rankings = {
        "popularity": np.broadcast_to(shop.popularity, chance.shape),
        "co-occurrence": counts[last] + shop.popularity,
        "slightly perturbed": chance * rng.uniform(0.9, 1.1, chance.shape),
        "strongly perturbed": chance * rng.uniform(0.1, 1.9, chance.shape),
        "single item": np.eye(SMALL.items)[prefixes.target] + chance,
    }
    for what, scores in rankings.items():
        for name, value in expected_gains(scores, chance).items():
            assert (value <= best[name] + 1e-12).all(), (what, name)
    table, popular = (
        expected_gains(rankings[each], chance)["ndcg@20"].mean() for each in ("co-occurrence", "popularity")
    )
    assert popular < table < 0.9 * best["ndcg@20"].mean()


def test_optimum_counts_the_sessions_that_it_is_given(shop, events):
    prefixes = prefixes_of(shop, events)
    chosen = prefixes.session_id[::7]
    got = optimum(shop, events, session_ids=chosen)
    chance = next_item_probabilities(shop, prefixes.items[::7], prefixes.event_types[::7])
    assert got["sessions"] == chosen.size
    assert got["ndcg@20"] == pytest.approx(realised_gains(chance, prefixes.target[::7])["ndcg@20"].mean())
    assert got["expected_recall@10"] == pytest.approx(expected_gains(chance, chance)["recall@10"].mean())
    assert got == optimum(shop, events.sort_by("item_id"), session_ids=chosen[::-1])


def test_prefixes_are_the_sessions_in_order_of_time(shop, events):
    frame = events.to_pandas().sort_values(["session_id", "time"])
    prefixes = prefixes_of(shop, events)
    sessions = {name: group for name, group in frame.groupby("session_id") if len(group) > 1}
    assert list(sessions) == prefixes.session_id.tolist()
    for row in range(0, len(sessions), 97):
        group = sessions[prefixes.session_id[row]]
        known = prefixes.items[row] >= 0
        assert [*shop.item_ids[prefixes.items[row, known]], shop.item_ids[prefixes.target[row]]] == list(
            group["item_id"]
        )
        kinds = np.array(["view", "cart", "buy"])[prefixes.event_types[row, known]]
        assert list(kinds) == list(group["event_type"])[:-1]


def test_the_events_look_like_a_shop(shop, events):
    assert events.schema == pa.schema(
        {
            "session_id": pa.int64(),
            "item_id": pa.string(),
            "time": pa.timestamp("ms"),
            "category": pa.string(),
            "price": pa.float64(),
            "event_type": pa.string(),
        }
    )
    assert sum(column.null_count for column in events.columns) == 0
    frame = events.to_pandas()
    assert frame["time"].is_monotonic_increasing
    assert frame["time"].min().date().isoformat() >= SMALL.start
    assert (frame.groupby("item_id")[["category", "price"]].nunique() == 1).all(axis=None)
    lengths = frame.groupby("session_id").size()
    assert len(lengths) == SMALL.sessions
    assert lengths.max() <= SMALL.max_events
    assert 0.06 < (lengths == 1).mean() < 0.10
    assert abs(lengths.mean() - SMALL.mean_events) < 0.3
    # Sessions interleave: far more changes of session from row to row than there are sessions.
    assert (frame["session_id"].diff() != 0).sum() > 2 * SMALL.sessions
    gaps = frame.groupby("session_id")["time"].diff().dropna().dt.total_seconds()
    assert gaps.min() >= 1
    assert gaps.max() <= 1200
    hours = frame["time"].dt.hour
    assert hours.isin([19, 20, 21]).sum() > 4 * hours.isin([2, 3, 4]).sum()
    assert set(frame["event_type"]) == {"view", "cart", "buy"}


def test_the_default_catalogue_has_a_long_tail_that_is_still_seen():
    settings = ShopSettings()
    counts = np.sort(pc.value_counts(simulate(settings)["item_id"]).field("counts").to_numpy())[::-1]
    assert counts.size == settings.items
    assert counts[: settings.items // 5].sum() > 0.5 * counts.sum()
    assert counts[settings.items * 9 // 10] >= 20


def test_integer_ids_are_the_same_sessions_under_other_names(shop, events):
    table = simulate(replace(SMALL, integer_ids=True))
    assert table["item_id"].type == pa.int64()
    assert table["item_id"].to_pylist() == [int(name.removeprefix("sku-")) for name in events["item_id"].to_pylist()]
    assert pc.min(table["item_id"]).as_py() == 0
    assert optimum(build_shop(replace(SMALL, integer_ids=True)), table) == optimum(shop, events)


def test_write_events_is_whole_or_not_at_all(tmp_path, events):
    path = tmp_path / "new" / "events.parquet"
    assert write_events(SMALL, path) == path
    assert pq.read_table(path).equals(events)
    with pytest.raises(UserError, match="start is 'someday'"):
        write_events(replace(SMALL, start="someday"), path)
    assert pq.read_table(path).equals(events)
    assert [each.name for each in path.parent.iterdir()] == ["events.parquet"]
    with pytest.raises(UserError, match=r"events\.parquet"):
        write_events(SMALL, path / "below" / "a" / "file")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"items": 5}, "items is 5"),
        ({"from_last": 0.9}, "mixture"),
        ({"sessions": 0}, "sessions"),
        ({"categories": 2}, "categories"),
    ],
)
def test_settings_that_no_shop_can_have(change, named):
    with pytest.raises(UserError, match=named):
        replace(SMALL, **change)


def test_misuse_of_the_oracle_is_told(shop, events):
    with pytest.raises(ValueError, match="on the right"):
        next_item_probabilities(shop, np.array([[-1, 3]]), np.array([[-1, VIEW]]))
    with pytest.raises(ValueError, match="same places"):
        next_item_probabilities(shop, np.array([[2, 3]]), np.array([[VIEW, -1]]))
    with pytest.raises(ValueError, match="outside"):
        next_item_probabilities(shop, np.array([[SMALL.items]]), np.array([[VIEW]]))
    with pytest.raises(ValueError, match="among them 999999"):
        optimum(shop, events, session_ids=[999_999])
    with pytest.raises(ValueError, match="sku-00119 is not of this shop"):
        optimum(
            build_shop(replace(SMALL, items=119, categories=7)), events.filter(pc.equal(events["item_id"], "sku-00119"))
        )
