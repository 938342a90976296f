"""What must be beaten: recommenders that count, or compare sessions, instead of learning vectors.

Each is fitted when it is made, on the training window, and scores the catalogue for padded sessions, as a model does::

    baseline = STAN(TrainingWindow(sessions, "item_id", cardinality, reserved, times))
    scores = baseline.scores(items)  # [B, L] -> [B, cardinality]

`BASELINES` has them by name. `modeling.baselines.gru4rec`, the recurrent network, is trained like our own models.
"""

from __future__ import annotations

from collections.abc import Callable

from modeling.baselines.neighbours import STAN, VSTAN, SessionNeighbours, VSkNN
from modeling.baselines.popularity import Popularity, RecentPopularity, SessionPopularity
from modeling.baselines.rules import Cooccurrence, ItemKNN, MarkovChain, RuleTable, SequentialRules
from modeling.baselines.window import TrainingWindow

__all__ = [
    "BASELINES",
    "STAN",
    "VSTAN",
    "Cooccurrence",
    "ItemKNN",
    "MarkovChain",
    "Popularity",
    "RecentPopularity",
    "RuleTable",
    "SequentialRules",
    "SessionNeighbours",
    "SessionPopularity",
    "TrainingWindow",
    "VSkNN",
]

BASELINES: dict[str, Callable[..., Popularity]] = {
    "popularity": Popularity,
    "recent-popularity": RecentPopularity,
    "session-popularity": SessionPopularity,
    "markov": MarkovChain,
    "cooccurrence": Cooccurrence,
    "sequential-rules": SequentialRules,
    "item-knn": ItemKNN,
    "v-sknn": VSkNN,
    "stan": STAN,
    "vstan": VSTAN,
}
