"""Evaluation on held-out sessions: the full catalogue is ranked, for a model and its baselines in the same way.

================= ==============================================================================
`scoring`         exact ranks of the last item, or of every item but the first, of each session
`bootstrap`       intervals over sessions, paired differences, several seeds
`breakdown`       by the events seen, and by the popularity of the item that came
`lists`           how much of the catalogue is recommended, and how popular that is
`sessions_file`   rank and metrics of every session, and comparisons between such files
`stage`           all of it: what ``nextitem evaluate`` does
`seeds`           the same of models that differ in their seed
================= ==============================================================================
"""

from modeling.evaluation.bootstrap import across_seeds, by_session, intervals, paired, resampled
from modeling.evaluation.breakdown import break_down, figures, length_groups, popularity_groups
from modeling.evaluation.lists import Exposure, coverage, gini, mean_popularity, percentiles
from modeling.evaluation.offline import describe_model, recommend
from modeling.evaluation.scoring import Targets, all_items, all_ranks, last_items, prefixes, ranks
from modeling.evaluation.seeds import evaluate_seeds
from modeling.evaluation.sessions_file import compare, read_table, session_table, write_table
from modeling.evaluation.stage import evaluate

__all__ = [
    "Exposure",
    "Targets",
    "across_seeds",
    "all_items",
    "all_ranks",
    "break_down",
    "by_session",
    "compare",
    "coverage",
    "describe_model",
    "evaluate",
    "evaluate_seeds",
    "figures",
    "gini",
    "intervals",
    "last_items",
    "length_groups",
    "mean_popularity",
    "paired",
    "percentiles",
    "popularity_groups",
    "prefixes",
    "ranks",
    "read_table",
    "recommend",
    "resampled",
    "session_table",
    "write_table",
]
