"""The law of the simulated shop: which item comes next, given the session so far, exactly.

Everything about the shop follows from its settings, so the law needs no file of its own::

    shop = build_shop(ShopSettings(seed=7))
    next_item_probabilities(shop, items, event_types)  # float64 [B, items], rows sum to 1

The next item is drawn from a mixture of four things that a session shows: companions of the last item (its
alternatives while it was only viewed, its complements once it went into the cart or was bought), items that follow
one step later on the item before the last, the category that the session has dwelt on most, and general popularity.
Session length, event types and times do not depend on the items, so nothing but the session so far says anything
about the next item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

EVENT_TYPES = ("view", "cart", "buy")
VIEW, CART, BUY = range(3)
PADDING = -1
# The tables of companions, by their place in Shop.companions.
ALTERNATIVES, COMPLEMENTS, FOLLOW_UPS = range(3)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ShopSettings:
    """What to simulate; the same settings always give the same law and the same events.

    Attributes
    ----------
    seed : int
        Seed of the law and of the events. The law does not depend on the number of sessions or days.
    items, categories : int
        Size of the catalogue, and in how many categories of equal size it falls (at least 3).
    sessions : int
        How many sessions.
    days : int
        Over how many days the sessions start, from midnight of `start`.
    start : str
        First day, as ISO 8601 text.
    mean_events : float
        Mean number of events in a session.
    single_share : float
        Share of the sessions that have only one event.
    max_events : int
        Longest session.
    zipf : float
        Exponent of the long tail: the item of rank r is popular as ``r ** -zipf``.
    companions : int
        Companions of an item in each of the three tables.
    from_last, from_before, from_category : float
        Weights of the mixture for companions of the last item, follow-ups of the item before it and the dominant
        category; the rest is general popularity.
    integer_ids : bool
        Item ids 0, 1, 2, ... instead of "sku-00000", ...: a real item then has the id 0 that is padding elsewhere.
    """

    seed: int = 7
    items: int = 1000
    categories: int = 25
    sessions: int = 50_000
    days: int = 28
    start: str = "2025-03-03"
    mean_events: float = 6.0
    single_share: float = 0.08
    max_events: int = 40
    zipf: float = 0.9
    companions: int = 2
    from_last: float = 0.47
    from_before: float = 0.38
    from_category: float = 0.09
    integer_ids: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that no shop can have."""
        needed = self.categories * (self.companions + 1)
        shortest = self.single_share + 2 * (1 - self.single_share)
        weights = (self.from_last, self.from_before, self.from_category)
        for wrong, what in (
            (self.categories < 3, f"categories is {self.categories}; give at least 3"),
            (self.companions < 1, f"companions is {self.companions}; give at least 1"),
            (self.items < needed, f"items is {self.items}; these categories and companions need at least {needed}"),
            (self.sessions < 1, f"sessions is {self.sessions}; give at least 1"),
            (self.days < 1, f"days is {self.days}; give at least 1"),
            (not 0 <= self.single_share <= 1, f"single_share is {self.single_share}; give a share from 0 to 1"),
            (self.max_events < 2, f"max_events is {self.max_events}; give at least 2"),
            (self.mean_events < shortest, f"mean_events is {self.mean_events}; give at least {shortest:g}"),
            (
                min(weights) < 0 or sum(weights) >= 1,
                f"the mixture weights {weights} must be >= 0 and sum to less than 1",
            ),
        ):
            if wrong:
                raise UserError(f"simulated shop: {what}")


@dataclass(frozen=True, eq=False)
class Shop:
    """A catalogue and its law. Items are told by their index 0..items-1; `item_ids` says what they are called.

    Attributes
    ----------
    item_ids : ndarray [items], str or int64
        The id of each item in the events.
    category : int64 [items]
        Category index of each item.
    price : float64 [items]
        Price of each item.
    popularity : float64 [items]
        General popularity, positive, sums to 1.
    companions : int64 [3, items, K]
        Companions of each item, distinct in a row: alternatives, complements and follow-ups.
    companion_weights : float64 [K]
        Which of the K companions, sums to 1.
    mixture : float64 [4]
        Weights of last item, item before the last, dominant category and popularity; sums to 1.
    event_types : float64 [3, 3]
        Chance of the next event type given the present one.
    """

    item_ids: NDArray
    category: Ints
    price: Floats
    popularity: Floats
    companions: Ints
    companion_weights: Floats
    mixture: Floats
    event_types: Floats


@dataclass(frozen=True, eq=False)
class Context:
    """All that the law looks at in a batch of prefixes; `PADDING` where a prefix is too short to say.

    Attributes
    ----------
    last, before : int64 [B]
        The last item and the one before it.
    table : int64 [B]
        `ALTERNATIVES` if the last event is a view, `COMPLEMENTS` if it is a cart or a buy.
    dominant : int64 [B]
        The category with most events so far; of several, the one met most recently.
    """

    last: Ints
    before: Ints
    table: Ints
    dominant: Ints


def build_shop(settings: ShopSettings) -> Shop:
    """Catalogue and law from the settings alone.

    Alternatives of an item come from its own category, complements from a partner category, follow-ups from a second
    partner; popular items are chosen more often (in proportion to popularity to the power 0.8).

    Parameters
    ----------
    settings : ShopSettings
        Of which ``sessions``, ``days``, ``start`` and the lengths have no influence on the law.

    Returns
    -------
    Shop
    """
    rng = np.random.default_rng([settings.seed, 0])
    count, categories, width = settings.items, settings.categories, settings.companions
    # Rank and category are shuffled over the ids, so that an id says nothing.
    popularity = (1.0 + rng.permutation(count)) ** -settings.zipf
    popularity /= popularity.sum()
    category = rng.permutation(count) % categories
    ring = rng.permutation(categories)  # partner categories: the next two on a ring through all of them
    members = [np.flatnonzero(category == each) for each in ring]
    companions = np.empty((3, count, width), np.int64)
    for table in (ALTERNATIVES, COMPLEMENTS, FOLLOW_UPS):
        for place, own in enumerate(members):
            others = members[(place + table) % categories]
            # Weighted sampling without replacement: the largest of log-weight plus Gumbel noise.
            keys = 0.8 * np.log(popularity[others]) + rng.gumbel(size=(own.size, others.size))
            keys[own[:, None] == others[None, :]] = -np.inf  # no item is its own companion
            companions[table, own] = others[np.argsort(-keys, axis=1)[:, :width]]
    weights = 0.35 ** np.arange(width)
    level = rng.normal(3.2, 0.7, categories)
    price = np.exp(level[category] + rng.normal(0.0, 0.35, count)).round(2)
    shares = [settings.from_last, settings.from_before, settings.from_category]
    return Shop(
        item_ids=np.arange(count) if settings.integer_ids else np.array([f"sku-{i:05d}" for i in range(count)]),
        category=category,
        price=np.maximum(price, 0.5),
        popularity=popularity,
        companions=companions,
        companion_weights=weights / weights.sum(),
        mixture=np.array([*shares, 1.0 - sum(shares)]),
        event_types=np.array([[0.50, 0.35, 0.15], [0.45, 0.15, 0.40], [0.60, 0.25, 0.15]]),
    )


def context_of(shop: Shop, items: Ints, event_types: Ints) -> Context:
    """What the law looks at in a batch of sessions so far.

    Parameters
    ----------
    shop : Shop
        The catalogue.
    items, event_types : int64 [B, L]
        Item indices and event type codes (0 view, 1 cart, 2 buy), oldest first, padded on the right with -1.

    Returns
    -------
    Context

    Raises
    ------
    ValueError
        When the shapes differ, an index is out of range, or padding is not on the right.
    """
    items, event_types = np.asarray(items, np.int64), np.asarray(event_types, np.int64)
    real = items != PADDING
    if items.ndim != 2 or items.shape != event_types.shape or (real != (event_types != PADDING)).any():
        raise ValueError("items and event_types must be [B, L] and padded in the same places")
    if (real[:, 1:] & ~real[:, :-1]).any():
        raise ValueError("prefixes must be padded on the right, with -1")
    if items.size and (items.min() < -1 or items.max() >= shop.category.size or event_types.max() >= len(EVENT_TYPES)):
        raise ValueError("an item index or an event type code is outside the shop's catalogue")
    batch, lengths = np.arange(len(items)), real.sum(axis=1)

    def back(values: Ints, steps: int) -> Ints:
        if values.shape[1] < steps:
            return np.full(len(values), PADDING)
        return np.where(lengths >= steps, values[batch, np.maximum(lengths - steps, 0)], PADDING)

    row, position = np.nonzero(real)  # in row-major order, so that the latest position of a category is written last
    category = shop.category[items[row, position]]
    categories = int(shop.category.max()) + 1
    seen = np.bincount(row * categories + category, minlength=len(items) * categories).reshape(-1, categories)
    latest = np.zeros_like(seen)
    latest[row, category] = position
    dominant = np.argmax(seen * (items.shape[1] + 1) + latest, axis=1)
    return Context(
        last=back(items, 1),
        before=back(items, 2),
        table=np.where(back(event_types, 1) == VIEW, ALTERNATIVES, COMPLEMENTS),
        dominant=np.where(lengths > 0, dominant, PADDING),
    )


def mixture_of(shop: Shop, context: Context) -> Floats:
    """Weights of the four components for each prefix, float64 [B, 4].

    With one event so far the last item takes the weight of the item before it; with none, popularity takes all.
    """
    weights = np.repeat(shop.mixture[None, :], context.last.size, axis=0)
    alone = context.before == PADDING
    weights[alone, 0] += weights[alone, 1]
    weights[alone, 1] = 0.0
    weights[context.last == PADDING] = (0.0, 0.0, 0.0, 1.0)
    return weights


def next_item_probabilities(shop: Shop, items: Ints, event_types: Ints) -> Floats:
    """The true chance of every item of the catalogue to come next: exact, from the session so far and nothing else.

    Parameters
    ----------
    shop : Shop
        From `build_shop` with the settings of the events.
    items, event_types : int64 [B, L]
        Sessions so far: item indices and event type codes, oldest first, padded on the right with -1. A session of
        zero events is allowed.

    Returns
    -------
    float64 [B, items]
        Rows sum to 1.
    """
    context = context_of(shop, items, event_types)
    weights = mixture_of(shop, context)
    in_dominant = shop.category[None, :] == context.dominant[:, None]
    of_category = np.bincount(shop.category, shop.popularity)[np.maximum(context.dominant, 0)]
    chance = (weights[:, 3:] + in_dominant * (weights[:, 2] / of_category)[:, None]) * shop.popularity
    row = np.arange(len(chance))[:, None]
    # A row of companions holds no item twice, so adding through an index loses nothing.
    chance[row, shop.companions[context.table, context.last]] += weights[:, :1] * shop.companion_weights
    chance[row, shop.companions[FOLLOW_UPS, context.before]] += weights[:, 1:2] * shop.companion_weights
    return chance


def draw_next_items(shop: Shop, items: Ints, event_types: Ints, rng: np.random.Generator) -> Ints:
    """One next item for each prefix, drawn component first (without the full vectors); int64 [B].

    Takes what `next_item_probabilities` takes, and a generator.
    """
    context = context_of(shop, items, event_types)
    size = context.last.size
    component = (rng.random(size)[:, None] >= mixture_of(shop, context).cumsum(axis=1)[:, :3]).sum(axis=1)
    which = _pick(shop.companion_weights.cumsum(), rng.random(size))
    of_last = shop.companions[context.table, context.last, which]
    of_before = shop.companions[FOLLOW_UPS, context.before, which]
    # Popularity cumulated category by category: a category is a stretch of it, the whole of it is the catalogue.
    order = np.argsort(shop.category, kind="stable")
    heights = shop.popularity[order].cumsum()
    ends = np.bincount(shop.category, shop.popularity).cumsum()
    within = np.maximum(context.dominant, 0)
    low = np.where((component == 2) & (within > 0), ends[within - 1], 0.0)
    high = np.where(component == 2, ends[within], heights[-1])
    of_popularity = order[_pick(heights, low + rng.random(size) * (high - low))]
    return np.choose(component, [of_last, of_before, of_popularity, of_popularity])


def _pick(heights: Floats, at: Floats) -> Ints:
    """Index of the step of a cumulated distribution in which each value falls, int64."""
    return np.minimum(np.searchsorted(heights, at, side="right"), heights.size - 1)
