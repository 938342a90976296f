"""The recurrent network passes what every architecture must, and learns under the loop of the others."""

from collections.abc import Callable

import pytest
import torch

import modeling as tr
from modeling.baselines.gru4rec import GRU, gru4rec
from modeling.checks import CHECKS, cell_maker, run_check
from modeling.fitting import fit
from modeling.schema import Feature


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in ("learns", "exports")])
def test_checks(name: str) -> None:
    result = run_check(cell_maker(lambda limit: GRU(32, dropout=0.1), "clm"), name)
    assert result.passed, result.detail


def test_it_learns(sessions_of: Callable[..., tr.Sessions]) -> None:
    torch.manual_seed(0)
    item = Feature("item_id", "categorical", 15, 3, True)
    settings = tr.ModelSettings(d_model=32, epochs=30, dropout=0.0, learning_rate=0.01, batch_size=32, patience=30)
    model = gru4rec(item, 8, settings)
    _, report = fit(model, sessions_of(400, 12, 3, 0), sessions_of(60, 12, 3, 1), settings, torch.device("cpu"))
    # The last event alone leaves three items, a mean reciprocal rank of 0.61; the event before it tells the step.
    assert report["valid"]["mrr@10"] > 0.8
