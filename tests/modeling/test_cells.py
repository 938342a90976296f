"""What must hold in every cell of architecture x objective: the seven checks, and a few things beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import modeling as tr
from modeling.backbones.objectives import OBJECTIVES, SUPPORTED, check_pair
from modeling.backbones.precision import double
from modeling.checks import CHECKS, cell_maker, run_check
from modeling.export.torchscript import export_torchscript, recommender

Batch = dict[str, torch.Tensor]
LENGTHS = [7, 1, 3, 5, 2]
REFUSED = [(a, m) for a, supported in SUPPORTED.items() for m in OBJECTIVES if m not in supported]


@pytest.mark.parametrize("check", CHECKS)
def test_checks(cell: tuple[str, str], check: str) -> None:
    architecture, masking = cell
    config = tr.transformer_registry[architecture]
    make = cell_maker(lambda limit: config.build(32, 2, 2, limit, dropout=0.0), masking, 32)
    result = run_check(make, check)
    assert result.passed, result


def finite(scores: torch.Tensor) -> torch.Tensor:
    return scores[:, 3:]


def scores(model: Any, batch: Batch) -> torch.Tensor:
    with torch.no_grad(), double():
        found: torch.Tensor = model(batch)
    return found


def altered(batch: Batch, row: int, column: int) -> Batch:
    """Another event, in all its features, at one place."""
    changed = {name: values.clone() for name, values in batch.items()}
    for name, values in changed.items():
        old = values[row, column]
        values[row, column] = old + 1.5 if name == "price" else 3 + (old - 2) % 4
    return changed


def test_every_event_of_the_past_counts(loud_model: Any, batch: Batch) -> None:
    before = scores(loud_model, batch)
    for column in range(7):
        after = scores(loud_model, altered(batch, 0, column))
        assert (finite(before)[0] - finite(after)[0]).abs().max() > 1e-6, f"event {column} has no influence"


def test_an_empty_session_gets_finite_scores(loud_model: Any, batch: Batch) -> None:
    nothing = {name: torch.zeros_like(values[:1, :1]) for name, values in batch.items()}
    alone = scores(loud_model, nothing)
    assert torch.isfinite(finite(alone)).all()
    # ... the same beside other sessions.
    beside = {name: torch.cat([torch.zeros_like(values[:1]), values]) for name, values in batch.items()}
    torch.testing.assert_close(scores(loud_model, beside)[:1], alone, rtol=1e-9, atol=1e-9)


def test_gradients_stop_at_the_target(loud_model: Any, batch: Batch) -> None:
    """In training too, no answer depends on the embedding of the event that it must predict, or on other sessions."""
    seen: list[torch.Tensor] = []
    inputs = loud_model.inputs
    embed = inputs.embed
    inputs.embed = lambda columns: seen.append(embed(columns).detach().requires_grad_()) or seen[-1]
    torch.manual_seed(0)
    with double():
        states = loud_model.head.body(batch, training=True)
    shift = 1 if inputs.masking.name == "clm" else 0
    # Not a plain sum: that of a normalised vector depends on nothing.
    probe = torch.randn(states.values.shape[2], dtype=torch.double)
    looked = False
    for row, column in states.targets.nonzero().tolist():
        (gradient,) = torch.autograd.grad(states.values[row, column] @ probe, seen[0], retain_graph=True)
        assert gradient[row, column + shift].abs().max() == 0
        assert gradient[[r for r in range(5) if r != row]].abs().max() == 0
        if inputs.masking.name == "clm":
            assert gradient[row, column + 1 :].abs().max() == 0
        looked |= bool(gradient[row].abs().max() > 0)
    assert looked


@pytest.mark.parametrize("rule", ["last", "seen"])
@pytest.mark.parametrize("exported", [("gpt2", "clm"), ("xlnet", "mlm")], ids="-".join)
def test_torchscript_leaves_out_items_of_the_session(
    exported: tuple[str, str], rule: str, make: Any, batch_of: Callable[..., Batch], tmp_path: Path
) -> None:
    """The exclusion does not depend on the backbone."""
    model = make(*exported)
    export_torchscript(model, tmp_path / "model.pt", rule)
    script, eager = torch.jit.load(str(tmp_path / "model.pt")), recommender(model, rule)
    for lengths in ([1], [8], [3, 1], [8, 2, 5, 8, 8, 1, 7], [11, 4], [2] * 33):
        columns = batch_of(lengths, seed=len(lengths))
        with torch.no_grad():
            (given, ids), (wanted, _) = script(columns, 27), eager(columns, 27)
        # float32, and the order of additions is the compiler's
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)
        for row, session in enumerate(columns["item_id"]):
            struck = set(session[session > 0].tolist()) if rule == "seen" else {int(session[lengths[row] - 1])}
            left = 27 - len(struck)
            assert set(ids[row][:left].tolist()) == set(range(3, 30)) - struck
            assert ids[row][left:].eq(0).all()
            assert given[row][left:].eq(float("-inf")).all()


@pytest.mark.parametrize(("architecture", "masking"), REFUSED)
def test_unsupported_pairs_are_refused_by_name(architecture: str, masking: str, make: Any) -> None:
    with pytest.raises(ValueError, match=f"{architecture}.*{masking}"):
        make(architecture, masking)


def test_the_support_matrix_of_transformers4rec_holds() -> None:
    """Every "yes" in the table of its documentation."""
    masked = ["albert", "bert", "convbert", "deberta", "distilbert", "megatron-bert", "mpnet", "roberta"]
    cells = [(name, masking) for name in masked for masking in ("mlm", "rtd")]
    cells += [("gpt2", "clm"), ("transfo-xl", "clm"), ("longformer", "clm"), ("longformer", "mlm")]
    cells += [("roformer", masking) for masking in ("clm", "mlm", "rtd")] + [
        ("xlnet", masking) for masking in OBJECTIVES
    ]
    for cell in cells:
        check_pair(*cell)
    assert set(SUPPORTED) == {name for name in tr.transformer_registry if name != "gtp2"}
