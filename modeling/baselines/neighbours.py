"""Nearest sessions: training sessions that share items with the one at hand vote for what they hold.

An inverted index finds them, as a product of sparse matrices for many sessions at once; memory does not grow with
training sessions x sessions to score.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp  # type: ignore[import-untyped]
import torch
from torch import Tensor

from modeling.baselines.popularity import Popularity
from modeling.baselines.window import TrainingWindow
from modeling.data import Sessions
from modeling.sequence import lengths

# Numbers held at once: sessions x the most of training sessions, catalogue and items of neighbours.
_AT_ONCE = 1 << 22


class SessionNeighbours(Popularity):
    """Base of the methods.

    For a session s of which the k-th item has position k, and a training session n::

        similarity(s, n) = sum over their common items of weight(position in s), divided as the method says
        score(j) = idf(j) * sum over the nearest n with j of
                   similarity(s, n) * freshness(n) * match(s, n) * closeness(j, n)

    `match` depends on how far from the end of s the last common item i* stands, `closeness` on how far apart j and i*
    stand in n. An item that occurs several times has the position of the last time. Popularity orders the rest.

    Parameters
    ----------
    window : TrainingWindow
        Without times no session is fresher than another.
    neighbours : int
        How many sessions vote; of equally similar ones the latest.
    sample : int, optional
        Neighbours are chosen among the latest so many that share an item; needs times.
    length : int
        Items kept of a training session, the last ones.
    """

    rarity_weight = 0.0

    def __init__(
        self,
        window: TrainingWindow,
        neighbours: int = 100,
        sample: int | None = None,
        length: int = 50,
    ) -> None:
        super().__init__(window)
        sessions, item, times = window.sessions, window.item, window.times
        self.neighbours = neighbours
        self.sample = sample if times is not None else None
        # Sorted by time, so that a later session has a higher number.
        order = torch.arange(len(sessions)) if times is None else torch.sort(times, stable=True).indices
        # Days from a session to the latest one.
        self.age = torch.zeros(len(sessions)) if times is None else (times.max() - times[order]).double()
        chosen = Sessions({item: sessions.values[item]}, sessions.offsets).padded(order, length)[item]
        self.items = _last_occurrences(chosen.masked_fill(chosen < self.reserved, 0), self.cardinality).to(torch.int32)
        rows, places = self.items.numpy().nonzero()
        found = self.items.numpy()[rows, places]
        shape = (self.cardinality, len(sessions))
        self.index = sp.coo_matrix((np.ones(len(rows)), (found, rows)), shape=shape).tocsr()
        self.sizes = torch.from_numpy(np.bincount(rows, minlength=len(sessions))).double()
        # log(sessions / sessions with the item); 0 for items that no session has.
        holders = torch.from_numpy(np.diff(self.index.indptr)).double()
        self.rarity = torch.where(holders > 0, (len(sessions) / holders.clamp(min=1)).log(), 0.0)

    def weight(self, position: Tensor, length: Tensor) -> Tensor:
        """Weight of the items at positions 1, 2, ... of sessions of these lengths."""
        raise NotImplementedError

    def similarity(self, common: Tensor, sizes: Tensor) -> Tensor:
        """Of the weights in common [B, S], with the numbers of items [B, 1] of the sessions at hand."""
        return common

    def freshness(self, age: Tensor) -> Tensor:
        """Weight of neighbours that began so many days before the latest training session."""
        return torch.ones_like(age)

    def match(self, steps: Tensor) -> Tensor:
        """Weight of neighbours whose last common item is so many steps before the session's end."""
        return torch.ones_like(steps)

    def closeness(self, distance: Tensor) -> Tensor:
        """Weight of a neighbour's items so many places away from the last common item."""
        return torch.ones_like(distance)

    def idf(self) -> Tensor:
        """Weight of each item [cardinality]: linear in the logarithm of its rarity, 1 without a `rarity_weight`."""
        return 1 + self.rarity_weight * self.rarity

    def scores(self, items: Tensor) -> Tensor:
        """Scores [B, cardinality] for sessions [B, L]; -inf for reserved ids."""
        held = max(len(self.sizes), self.cardinality, self.neighbours * self.items.shape[1])
        return torch.cat([self._scores(chunk) for chunk in items.split(max(1, _AT_ONCE // held))])

    def _scores(self, items: Tensor) -> Tensor:
        n = lengths(items)[:, None]
        position = torch.arange(1, items.shape[1] + 1).expand(items.shape)
        known = items.masked_fill(items < self.reserved, 0)
        # Where in the session each item of the catalogue stands, 0 where it does not.
        place = torch.zeros(len(items), self.cardinality, dtype=torch.long).scatter_reduce(1, known, position, "amax")
        place[:, 0] = 0
        chosen, near = self._nearest(place, n, known, position)
        theirs = self.items[chosen].long()
        common = place.gather(1, theirs.flatten(1)).view(theirs.shape)
        last, at = common.max(2)
        strength = near * self.freshness(self.age[chosen]) * self.match((n - last).double())
        distance = (torch.arange(theirs.shape[2]) - at[..., None]).abs().double()
        votes = strength[..., None] * self.closeness(distance)
        scores = torch.zeros(len(items), self.cardinality, dtype=torch.double)
        scores.scatter_add_(1, theirs.flatten(1), votes.flatten(1))
        scores *= self.idf()
        # Of old neighbours all votes may be tiny.
        scores /= scores[:, 1:].amax(1, keepdim=True).clamp(min=torch.finfo(torch.double).tiny)
        return self._struck(scores + 1e-9 * self._fill())

    def _nearest(self, place: Tensor, n: Tensor, known: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest sessions [B, k] and their similarities, 0 where there are fewer."""
        counted = (place.gather(1, known) == position) & (known > 0)
        rows, columns = counted.nonzero(as_tuple=True)
        weights = self.weight(position.double(), n.double())[counted]
        query = sp.coo_matrix((weights.numpy(), (rows.numpy(), known[rows, columns].numpy())), shape=place.shape)
        common = torch.from_numpy((query.tocsr() @ self.index).toarray())
        near = self.similarity(common, counted.sum(1, keepdim=True).double())
        if self.sample is not None:
            # How many share an item from this one to the latest.
            number = (near > 0).flip(1).cumsum(1).flip(1)
            near = near.masked_fill(number > self.sample, 0)
        # Of equally similar sessions the latest.
        later = 1 + 1e-9 * torch.arange(near.shape[1]).double() / near.shape[1]
        which = (near * later).topk(min(self.neighbours, near.shape[1])).indices
        return which, near.gather(1, which)


class VSkNN(SessionNeighbours):
    """Vector multiplication session-kNN: later items of the session count more.

    ``weight(k) = (k / |s|) ^ p``, the similarity is the plain sum, ``match = 1 / (steps + 1) ^ q``, ``idf`` as in
    `VSTAN`. Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", 2018, where p and q are 1
    (linear, div) or 2 (quadratic).

    Parameters
    ----------
    window, neighbours, sample
        See `SessionNeighbours`.
    power, match_power : float
        p and q.
    rarity_weight : float
        See `VSTAN`.
    """

    def __init__(
        self,
        window: TrainingWindow,
        neighbours: int = 500,
        sample: int | None = 5000,
        power: float = 1.0,
        match_power: float = 1.0,
        rarity_weight: float = 0.0,
    ) -> None:
        super().__init__(window, neighbours, sample)
        self.power = power
        self.match_power = match_power
        self.rarity_weight = rarity_weight

    def weight(self, position: Tensor, length: Tensor) -> Tensor:
        """A power of the position's share."""
        return (position / length) ** self.power

    def match(self, steps: Tensor) -> Tensor:
        """A power of the reciprocal."""
        return (steps + 1) ** -self.match_power


class STAN(SessionNeighbours):
    """Sequence- and time-aware neighbourhood: everything decays exponentially.

    ``weight(k) = exp((k - |s|) / l1)``, divided by ``sqrt(|s| |n|)``; ``freshness = exp(-days / l2)``;
    ``closeness = exp(-distance / l3)``. Garg et al., "Sequence and time aware neighborhood for session-based
    recommendations", 2019. The days count from the latest training session: from the session at hand they would be
    more by the same number for all neighbours, which changes no order.

    Parameters
    ----------
    window, neighbours, sample
        See `SessionNeighbours`.
    position_decay, days_decay, distance_decay : float
        l1, l2 and l3.
    """

    def __init__(
        self,
        window: TrainingWindow,
        neighbours: int = 500,
        sample: int | None = None,
        position_decay: float = 1.02,
        days_decay: float = 100.0,
        distance_decay: float = 2.05,
    ) -> None:
        super().__init__(window, neighbours, sample)
        self.position_decay = position_decay
        self.days_decay = days_decay
        self.distance_decay = distance_decay

    def weight(self, position: Tensor, length: Tensor) -> Tensor:
        """Exponential."""
        return ((position - length) / self.position_decay).exp()

    def similarity(self, common: Tensor, sizes: Tensor) -> Tensor:
        """Cosine, but for the weights."""
        return common / (sizes * self.sizes).sqrt().clamp(min=1)

    def freshness(self, age: Tensor) -> Tensor:
        """Exponential."""
        return (-age / self.days_decay).exp()

    def closeness(self, distance: Tensor) -> Tensor:
        """Exponential."""
        return (-distance / self.distance_decay).exp()


class VSTAN(STAN):
    """`STAN` with what `VSkNN` knows: neighbours that match late count more, and so do rare items.

    ``match = exp(-steps / l4)`` and ``idf(j) = 1 + l5 log(|S| / |S with j|)``. Ludewig et al., "Empirical analysis of
    session-based recommendation algorithms", 2021.

    Parameters
    ----------
    window, neighbours, sample, **decays
        See `STAN`.
    match_decay, rarity_weight : float
        l4 and l5.
    """

    def __init__(
        self,
        window: TrainingWindow,
        neighbours: int = 500,
        sample: int | None = None,
        match_decay: float = 1.02,
        rarity_weight: float = 0.0,
        **decays: float,
    ) -> None:
        super().__init__(window, neighbours, sample, **decays)
        self.match_decay = match_decay
        self.rarity_weight = rarity_weight

    def match(self, steps: Tensor) -> Tensor:
        """Exponential."""
        return (-steps / self.match_decay).exp()


def _last_occurrences(items: Tensor, cardinality: int) -> Tensor:
    """Padded sessions [S, L] in which every occurrence of an item but its last is 0."""
    flat = items.numpy()
    rows, places = flat.nonzero()
    # Backwards, because of equal keys the first is told.
    keys = (rows.astype(np.int64) * cardinality + flat[rows, places])[::-1]
    _, first = np.unique(keys, return_index=True)
    kept = len(keys) - 1 - first
    found = np.zeros_like(flat)
    found[rows[kept], places[kept]] = flat[rows[kept], places[kept]]
    return torch.from_numpy(found)
