"""What must hold in every cell of architecture x objective.

The models compute in double precision, so differences from the order of additions are below 1e-9, while a leak
moves scores of size 1 and more.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import modeling as tr
from modeling.backbones.configs import SUPPORTED
from modeling.compute import threads
from modeling.export.torchscript import export_torchscript, recommender
from modeling.schema import Feature
from modeling.settings import ModelSettings
from modeling.training import fit

Batch = dict[str, torch.Tensor]
TOLERANCE = 1e-9
SUPPORTED_CELLS = [(architecture, masking) for architecture, all_of in SUPPORTED.items() for masking in all_of]
# The exclusion does not depend on the backbone.
EXPORTS = [(cell, "none") for cell in SUPPORTED_CELLS]
EXPORTS += [(cell, rule) for cell in (("gpt2", "clm"), ("xlnet", "mlm")) for rule in ("last", "seen")]
REFUSED = [(a, m) for a in SUPPORTED for m in ("clm", "mlm") if (a, m) not in SUPPORTED_CELLS]


def finite(scores: torch.Tensor) -> torch.Tensor:
    return scores[:, 3:]


def assert_equal(a: torch.Tensor, b: torch.Tensor) -> None:
    assert torch.isfinite(finite(a)).all()
    torch.testing.assert_close(finite(a), finite(b), rtol=TOLERANCE, atol=TOLERANCE)


def scores(model: Any, batch: Batch, **how: bool) -> torch.Tensor:
    with torch.no_grad():
        result = model(batch, **how)
    return result["predictions"] if isinstance(result, dict) else result


def altered(batch: Batch, row: int, column: int) -> Batch:
    """Another event, in all its features, at one place."""
    changed = {name: values.clone() for name, values in batch.items()}
    for name, values in changed.items():
        old = values[row, column]
        values[row, column] = old + 1.5 if name == "price" else 3 + (old - 2) % 4
    return changed


def test_the_target_event_is_not_seen(loud_model: Any, batch: Batch) -> None:
    before = scores(loud_model, batch, testing=True)
    after = scores(loud_model, altered(batch, 0, 6), testing=True)
    assert torch.equal(finite(before), finite(after))
    # The event before it is.
    other = scores(loud_model, altered(batch, 0, 5), testing=True)
    assert (finite(before)[0] - finite(other)[0]).abs().max() > 1e-3


def test_evaluation_scores_what_the_shortened_session_gets_in_inference(loud_model: Any, batch: Batch) -> None:
    held_out = scores(loud_model, batch, testing=True)
    for row, n in enumerate([7, 1, 3, 5, 2]):
        if n >= 2:
            past = {name: values[row : row + 1, : n - 1] for name, values in batch.items()}
            assert_equal(held_out[row : row + 1], scores(loud_model, past))
    labels = loud_model(batch, testing=True)["labels"]
    assert labels.tolist() == [batch["item_id"][row, n - 1].item() for row, n in enumerate([7, 1, 3, 5, 2])]


def test_padding_does_not_matter(loud_model: Any, batch: Batch) -> None:
    wider = {name: torch.nn.functional.pad(values, [0, 4]) for name, values in batch.items()}
    assert_equal(scores(loud_model, batch), scores(loud_model, wider))


def test_batch_mates_do_not_matter(loud_model: Any, batch: Batch) -> None:
    together = scores(loud_model, batch)
    for row, n in enumerate([7, 1, 3, 5, 2]):
        alone = {name: values[row : row + 1, :n] for name, values in batch.items()}
        assert_equal(together[row : row + 1], scores(loud_model, alone))


def test_every_event_of_the_past_counts(loud_model: Any, batch: Batch) -> None:
    before = scores(loud_model, batch)
    for column in range(7):
        after = scores(loud_model, altered(batch, 0, column))
        assert (finite(before)[0] - finite(after)[0]).abs().max() > 1e-6, f"event {column} has no influence"
        assert torch.equal(finite(before)[1:], finite(after)[1:])


def test_the_most_recent_events_are_kept(loud_model: Any, batch_of: Callable[..., Batch]) -> None:
    long = batch_of([12, 4], 12)
    recent = {name: torch.stack([v[0, 5:], v[1, :7]]) for name, v in long.items()}
    assert_equal(scores(loud_model, long), scores(loud_model, recent))


def test_an_empty_session_gets_finite_scores(loud_model: Any, batch: Batch) -> None:
    nothing = {name: torch.zeros_like(values[:1, :1]) for name, values in batch.items()}
    assert torch.isfinite(finite(scores(loud_model, nothing))).all()


def test_training_sees_ahead_only_where_the_objective_allows(loud_model: Any, batch: Batch) -> None:
    masked = loud_model.inputs.masking.name == "mlm"
    body = loud_model.head.body

    def vectors(columns: Batch) -> torch.Tensor:
        torch.manual_seed(0)  # the same events are hidden
        with torch.no_grad():
            return body(columns, training=True).values[0]

    torch.manual_seed(0)
    hidden = loud_model.inputs.masking.choose(batch["item_id"])[0] if masked else torch.zeros(7, dtype=torch.bool)
    later = int((~hidden).nonzero().max()) if masked else 5
    change = (vectors(batch) - vectors(altered(batch, 0, later)))[:later].abs().max()
    assert change > 1e-6 if masked else change == 0


def test_gradients_stop_at_the_target(loud_model: Any, batch: Batch) -> None:
    """In training too, no answer depends on the embedding of the event that it must predict."""
    seen: list[torch.Tensor] = []
    inputs = loud_model.inputs
    embed = inputs.embed
    inputs.embed = lambda columns: seen.append(embed(columns).detach().requires_grad_()) or seen[-1]
    torch.manual_seed(0)
    states = loud_model.head.body(batch, training=True)
    shift = 1 if inputs.masking.name == "clm" else 0
    for row, column in states.targets.nonzero().tolist():
        (gradient,) = torch.autograd.grad(states.values[row, column].sum(), seen[0], retain_graph=True)
        assert gradient[row, column + shift].abs().max() == 0
        assert gradient[[r for r in range(5) if r != row]].abs().max() == 0


def test_saved_and_loaded_is_the_same(cell: tuple[str, str], make: Any, batch: Batch, tmp_path: Path) -> None:
    model = make(*cell)
    model.save(tmp_path / "model")
    loaded = tr.Model.load(tmp_path / "model")
    assert torch.equal(finite(scores(model, batch)), finite(scores(loaded, batch)))
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"model.json", "model.safetensors"}


@pytest.mark.parametrize(("cell", "exclude"), EXPORTS)
def test_torchscript_equals_eager_at_other_shapes(
    cell: tuple[str, str], exclude: str, make: Any, batch_of: Callable[..., Batch], tmp_path: Path
) -> None:
    model = make(*cell)
    export_torchscript(model, tmp_path / "model.pt", exclude)
    exported = torch.jit.load(str(tmp_path / "model.pt"))
    eager = recommender(model, exclude)
    for lengths in ([1], [8], [3, 1], [8, 2, 5, 8, 8, 1, 7], [11, 4], [2] * 33):
        columns = batch_of(lengths, seed=len(lengths))
        with torch.no_grad():
            (given, ids), (wanted, _) = exported(columns, 27), eager(columns, 27)
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)
        left = 27 - torch.tensor(
            [{"none": 0, "last": 1, "seen": len(set(row[row > 0].tolist()))}[exclude] for row in columns["item_id"]]
        )
        for row, session in enumerate(columns["item_id"]):
            real = ids[row][: left[row]]
            assert len(set(real.tolist())) == left[row]
            assert real.min() >= 3
            assert ids[row][left[row] :].eq(0).all()
            assert given[row][left[row] :].eq(float("-inf")).all()
            if exclude == "seen":
                assert not set(real.tolist()) & set(session.tolist())
            if exclude == "last":
                assert session[lengths[row] - 1] not in real


def test_it_learns_a_planted_rule(cell: tuple[str, str], sessions_of: Callable[..., Any]) -> None:
    """The next item follows from the last two; where positions are absolute and both sides are seen, from the last.

    (The harder rule needs several times the epochs there.)
    """
    architecture, masking = cell
    steps = 2 if architecture in ("gpt2", "xlnet") else 1
    epochs = 15 if steps == 2 else 30
    train, test = sessions_of(400, 8, steps, seed=0), sessions_of(80, 8, steps, seed=1)
    item = Feature("item_id", "categorical", 11, 3, True)
    settings = ModelSettings(
        architecture=architecture, masking=masking, d_model=32, n_head=2, dropout=0.0, batch_size=16, epochs=epochs,
        learning_rate=0.003, patience=epochs, mlm_probability=0.3, last_item_probability=0.0, threads=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = tr.build_model([item], 8, settings)
    with threads(1):
        fit(model, train, test, settings, torch.device("cpu"))
    ranks = tr.ranks(model.eval(), test, item, 8)
    assert float(tr.RecallAt([1]).from_ranks(ranks)[0]) >= 0.95


@pytest.mark.parametrize(("architecture", "masking"), REFUSED)
def test_unsupported_pairs_are_refused_by_name(architecture: str, masking: str, make: Any) -> None:
    with pytest.raises(ValueError, match=f"{architecture}.*{masking}"):
        make(architecture, masking)
