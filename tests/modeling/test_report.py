"""The model card: it tells what was measured, and nothing in the data can break the page."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import modeling as tr
from modeling.data import Sessions, read_sessions
from modeling.evaluation import ranks, recommend
from modeling.report import measure, peak_mib, write_card
from modeling.report.facts import EXAMPLES, PAST, SHOWN, Example, Figures

CPU = torch.device("cpu")
HISTORY = [
    {"epoch": 1, "loss": 3.5, "sessions_per_s": 900.0, "ndcg@20": 0.25, "recall@20": 0.5},
    {"epoch": 2, "loss": 3.0, "sessions_per_s": 950.0, "ndcg@20": 0.5, "recall@20": 0.75},
    {"epoch": 3, "loss": 2.5, "sessions_per_s": 940.0, "ndcg@20": 0.375, "recall@20": 0.75},
]
REPORT = {
    "windows": {"train": "train", "valid": "valid"},
    "architecture": "gpt2",
    "masking": "clm",
    "parameters": 12345,
    "catalogue_size": 3,
    "sessions": 77,
    "epochs": 3,
    "epochs_allowed": 3,
    "best_epoch": 2,
    "device": "cpu",
}


def spread(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}


def figures(model: float, cooccurrence: float) -> Figures:
    own = {"model": model, "cooccurrence": cooccurrence, "popularity": 0.1}
    metrics = {name: {"ndcg@20": spread(mean)} for name, mean in own.items()}
    lengths = {"1": {"targets": 4, "intervals": {"model": {"ndcg@20": spread(0.4)}}}}
    examples = [Example([3, 4], 5, 2.0, [4, 5]), Example([5], 5, float("inf"), [3])]
    return Figures(42, metrics, lengths, examples)


def page(tmp_path: Path, **changes: Any) -> str:
    given: dict[str, Any] = {
        "report": REPORT,
        "history": HISTORY,
        "settings": {"d_model": 64},
        "figures": figures(0.5, 0.4),
        "names": ["", "(missing)", "(unknown)", "tea", "mug", "<script>alert(1)</script>"],
        "features": ["item_id", "price"],
    } | changes
    write_card(tmp_path / "report.html", **given)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_the_page_needs_nothing_and_runs_nothing(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert "default-src 'none'" in html
    assert "<script" not in html
    assert not re.search(r"(src|href)=\"(?!#)", html.replace("xlink:href", "href"))


def test_examples_are_named_and_what_came_is_marked(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert "<mark>&lt;script&gt;alert(1)&lt;/script&gt;</mark>" in html
    text = words(html)
    assert "tea &rsaquo; mug" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; (2)" in text
    assert "(not to be recommended)" in text
    assert "3 &rsaquo; 4" in words(page(tmp_path, names=[]))


@pytest.mark.parametrize(
    ("model", "cooccurrence", "verdict"),
    [
        (0.5, 0.4, "The model is better than cooccurrence."),
        (0.4, 0.5, "The model is worse than cooccurrence"),
        (0.5, 0.495, "overlap"),
    ],
)
def test_the_verdict_is_that_of_the_intervals(tmp_path: Path, model: float, cooccurrence: float, verdict: str) -> None:
    assert verdict in words(page(tmp_path, figures=figures(model, cooccurrence)))


def test_the_last_epoch_as_the_best_one_is_remarked_on(tmp_path: Path) -> None:
    assert "The weights of epoch 2 of 3 were kept" in words(page(tmp_path))
    assert "more epochs may do better" not in words(page(tmp_path))
    assert "more epochs may do better" in words(page(tmp_path, report=REPORT | {"best_epoch": 3}))


def test_without_anything_to_measure_there_is_a_page_too(tmp_path: Path) -> None:
    assert "no session whose last item training knows" in words(page(tmp_path, figures=None))


def test_figures_are_those_of_the_model(features: Path, make: Callable[..., Any]) -> None:
    model = tr.Model.load(trained(features, features.parent / "card"))
    train, valid = (read_sessions(features, window, model.features) for window in ("train", "valid"))
    found = measure(model.eval(), train, valid, "last", CPU)
    assert found is not None
    item, limit = model.inputs.item, model.max_sequence_length
    own = ranks(model, valid, item, limit, "last")
    known = own[~own.isnan()]
    assert found.sessions == len(known)
    hits = (known <= 10).double().mean()
    assert found.metrics["model"]["recall@10"]["mean"] == pytest.approx(float(hits))
    assert found.metrics["model"]["recall@10"]["low"] <= hits <= found.metrics["model"]["recall@10"]["high"]
    assert 1 < len(found.examples) <= EXAMPLES
    places = [one.rank for one in found.examples]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (float(known.min()), float(known.max()))
    for one in found.examples:
        assert len(one.past) <= PAST
        assert len(one.recommended) == SHOWN
        if 1 <= one.rank <= SHOWN and one.rank == int(one.rank):
            assert one.recommended[int(one.rank) - 1] == one.came
    shortest = next(one for one in found.examples if len(one.past) < PAST)
    columns = without_last_of(valid, shortest, item.name)
    _, ids = recommend(model, columns, SHOWN, "last")
    assert ids[0].tolist() == shortest.recommended


def without_last_of(valid: Sessions, example: Example, item: str) -> dict[str, torch.Tensor]:
    """The columns of the session that an example shows, without its last event."""
    wanted = [*example.past, example.came]
    for number in range(len(valid)):
        columns = valid.padded(torch.tensor([number]), 50)
        if columns[item][0].tolist() == wanted:
            return {name: value[:, :-1] for name, value in columns.items()}
    raise AssertionError("the example is no session of the window")


def trained(features: Path, output: Path) -> Path:
    settings = tr.ModelSettings(
        d_model=16, n_head=2, n_layer=1, epochs=1, batch_size=64, threads=1, device="cpu", features="all"
    )
    tr.train(features, output, settings, names=lambda folder: [f"item of {folder.name}"] * 99)
    assert "item of" in (output / "report.html").read_text()
    return output


def test_memory_is_in_mib() -> None:
    found = peak_mib(CPU)
    assert set(found) == {"peak_mib"}
    # A process with torch in it holds some hundred MiB, and this machine no million.
    assert 50 < found["peak_mib"] < 1e6
