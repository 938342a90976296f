"""The most frequent items: of all training, of its last days, or of the session itself."""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.baselines.window import TrainingWindow
from modeling.sequence import lengths


class Popularity:
    """The items that occur most often in training, the same for every session.

    Parameters
    ----------
    window : TrainingWindow
        What is counted.
    """

    def __init__(self, window: TrainingWindow) -> None:
        self.cardinality = window.cardinality
        self.reserved = window.reserved
        self.counts = torch.bincount(window.sessions.values[window.item], minlength=window.cardinality).double()

    def scores(self, items: Tensor) -> Tensor:
        """Scores [B, cardinality] for sessions [B, L]; -inf for reserved ids."""
        return self._struck(self.counts.repeat(len(items), 1))

    def _struck(self, scores: Tensor) -> Tensor:
        scores[:, : self.reserved] = float("-inf")
        return scores

    def _fill(self) -> Tensor:
        """Popularity [cardinality] below one: it orders what a baseline leaves equal."""
        return self.counts / (self.counts.max() + 1)


class RecentPopularity(Popularity):
    """The items that occur most often in the sessions of the last days of training, then those of all training.

    Parameters
    ----------
    window : TrainingWindow
        With times.
    days : float
        How far back from the latest session's start.

    Raises
    ------
    ValueError
        Without times.
    """

    def __init__(
        self,
        window: TrainingWindow,
        days: float = 7.0,
    ) -> None:
        super().__init__(window)
        if window.times is None:
            raise ValueError("popularity of the last days needs the times of the sessions")
        recent = (window.times >= window.times.max() - days).repeat_interleave(window.sessions.lengths)
        items = window.sessions.values[window.item][recent]
        self.recent = torch.bincount(items, minlength=window.cardinality).double()

    def scores(self, items: Tensor) -> Tensor:
        """Scores [B, cardinality] for sessions [B, L]; -inf for reserved ids."""
        return self._struck((self.recent + self._fill()).repeat(len(items), 1))


class SessionPopularity(Popularity):
    """The items of the session itself, the most frequent first and of these the most recent, then the popular ones.

    The baseline S-POP of Hidasi et al., "Session-based recommendations with recurrent neural networks", 2016.
    """

    def scores(self, items: Tensor) -> Tensor:
        """Scores [B, cardinality] for sessions [B, L]; -inf for reserved ids."""
        scores = self._fill().repeat(len(items), 1)
        position = torch.arange(1, items.shape[1] + 1).double().expand(items.shape)
        seen = torch.zeros_like(scores).scatter_add(1, items, torch.ones_like(position))
        # Below one, so that recency orders only what is equally frequent; popularity still orders the rest.
        last = torch.zeros_like(scores).scatter_reduce(1, items, position / (position + 1), "amax")
        return self._struck(torch.where(seen > 0, 1 + seen + last, scores))


def last_items(items: Tensor) -> Tensor:
    """The last item [B] of padded sessions [B, L]; 0 where a session has no event."""
    return items.gather(1, (lengths(items) - 1).clamp(min=0)[:, None])[:, 0]
