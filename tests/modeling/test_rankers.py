"""The best items of a large catalogue: what is skipped cannot hold an answer."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from modeling.export.bounds import BLOCK, block_bounds
from modeling.export.rankers import BoundedRanker, VectorRanker, served
from modeling.ranking import best, best_by_blocks

RESERVED, WIDTH = 3, 16
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit
INF = float("inf")


def reload(ranker: torch.nn.Module) -> Any:
    """As a server has it."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(ranker), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def bounded(vectors: Tensor, bias: Tensor | None = None) -> Any:
    ranker = BoundedRanker(vectors, bias, RESERVED, block_bounds(vectors, bias))
    ranker.budget = min(-(-len(vectors) // BLOCK), max(64, ranker.budget))  # small catalogues too
    return reload(ranker)


def wanted(answers: Tensor, vectors: Tensor, bias: Tensor | None, struck: Tensor) -> Tensor:
    """Scores of all items, in double precision."""
    scores = answers.double() @ vectors.double().T + (0 if bias is None else bias.double())
    scores[:, :RESERVED] = -INF
    return scores.scatter(1, struck, -INF)


def agrees(found: tuple[Tensor, Tensor], scores: Tensor, k: int, exact: float = 1e-5) -> None:
    """The k best, whichever of those that are equal in float32."""
    (top, ids), expected = found, best(scores, k)[0]
    left = expected > -INF
    scale = scores.masked_fill(scores == -INF, 0).abs().amax(1, keepdim=True) + 1e-30
    assert torch.equal(top > -INF, left)
    assert torch.equal(ids == 0, ~left)
    assert ((top.double() - expected)[left] / scale.expand_as(top)[left]).abs().lt(exact).all()
    # ... and each has the score that is said of it, and is there once.
    assert ((scores.gather(1, ids) - expected)[left] / scale.expand_as(top)[left]).abs().lt(exact).all()
    for row in ids:
        named = row[row > 0]
        assert len(named.unique()) == len(named)


def vectors_of(kind: str, items: int) -> Tensor:
    generator = torch.Generator().manual_seed(items)
    vectors = torch.randn(items, WIDTH, generator=generator)
    if kind == "norms over twelve orders of magnitude":
        vectors = vectors * 10 ** (12 * torch.rand(items, 1, generator=generator) - 6)
    elif kind == "one column a thousand times the others":
        vectors[:, 5] *= 1000
    elif kind == "ten different items only":
        vectors = vectors[:10].repeat(-(-items // 10), 1)[:items].clone()
    elif kind == "almost the same":
        vectors = torch.ones(items, WIDTH) + 1e-3 * vectors
    elif kind == "mostly zero":
        vectors[: items // 2] = 0
        vectors[-items // 3 :] = 0
    elif kind == "nothing":
        vectors = torch.zeros(items, WIDTH)
    return vectors


KINDS = [
    "normal",
    "norms over twelve orders of magnitude",
    "one column a thousand times the others",
    "ten different items only",
    "almost the same",
    "mostly zero",
    "nothing",
]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_best_are_those_of_full_scoring(kind: str, with_bias: bool) -> None:
    for items in (20_000, 70_001):
        vectors = vectors_of(kind, items)
        generator = torch.Generator().manual_seed(1)
        bias = torch.randn(items, generator=generator) if with_bias else None
        ranker = bounded(vectors, bias)
        assert ranker.bounds.ready()
        answers = torch.randn(40, WIDTH, generator=generator)
        answers[3], answers[4], answers[5] = 0, answers[4] * 1e-8, vectors[77]
        # Among what is struck are the best, the first, the last, and one twice.
        first = best(wanted(answers, vectors, bias, torch.zeros(40, 0, dtype=torch.long)), 3)[1]
        struck = torch.cat([first, torch.tensor([[0, 5, 5, items - 1]]).expand(40, 4)], 1)
        for k in (1, 10):
            for taken in (struck[:, :0], struck):
                agrees(ranker(answers, k, taken, None), wanted(answers, vectors, bias, taken), k)
                agrees(ranker(answers[:1], k, taken[:1], None), wanted(answers[:1], vectors, bias, taken[:1]), k)


def test_bounds_hold_and_are_narrow() -> None:
    for kind in KINDS:
        vectors, answers = vectors_of(kind, 5_000), torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(0))
        answers[2], answers[3] = 0, answers[3] * 1e12
        bias = vectors[:, 0].clone()
        bounds = reload(block_bounds(vectors, bias))
        upper, lower = bounds(answers)
        unit = answers.abs().amax(1, keepdim=True)
        unit[2] = 1
        scores = (answers.double() @ vectors.double().T + bias.double()) / unit
        whole = torch.nn.functional.pad(scores, [0, -5_000 % BLOCK], value=-INF).view(6, -1, BLOCK).amax(2)
        assert (lower.double() <= whole).all(), kind
        assert (whole <= upper.double()).all(), kind
        alone = reload(block_bounds(vectors, None))
        scores = (answers.double() @ vectors.double().T) / unit
        whole = torch.nn.functional.pad(scores, [0, -5_000 % BLOCK], value=-INF).view(6, -1, BLOCK).amax(2)
        for row in range(6):
            upper, lower = alone(answers[row : row + 1])
            assert (lower.double() <= whole[row]).all(), kind
            assert (whole[row] <= upper.double()).all(), kind
    narrow = reload(block_bounds(torch.randn(5_000, 64), None))
    for batch in (1, 2):
        upper, lower = narrow(torch.randn(64, generator=torch.Generator().manual_seed(0)).sign().expand(batch, 64))
        assert (upper - lower).max() < 0.25 * 8  # a quarter of the scores' standard deviation


def test_catalogues_smaller_than_a_block_and_k_near_their_size() -> None:
    for items in (4, 63, 64, 65, 200):
        vectors, answers = vectors_of("normal", items), torch.randn(3, WIDTH)
        ranker = bounded(vectors)
        for struck in (torch.zeros(3, 0, dtype=torch.long), torch.arange(items).expand(3, -1)):
            for k in (1, items - RESERVED, items, items + 5):
                agrees(ranker(answers, k, struck, None), wanted(answers, vectors, None, struck), k)


def test_rows_that_cannot_be_bounded_are_scored_in_full() -> None:
    """One row whose items are all alike, and one that is not a number, among others."""
    vectors = vectors_of("normal", 20_000)
    vectors[:, 0] = 0
    ranker = bounded(vectors)
    answers = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
    answers[1] = torch.nn.functional.one_hot(torch.tensor(0), WIDTH)  # every score is 0
    answers[3] *= 1e30
    struck = torch.tensor([[4, 0], [7, 8], [0, 0], [4, 4], [9, 0]])
    agrees(ranker(answers, 8, struck, None), wanted(answers, vectors, None, struck), 8)
    broken = answers.clone()
    broken[2] = float("nan")
    top, _ = ranker(broken, 8, struck, None)
    assert top[2].isnan().all()
    whole = [0, 1, 3, 4]
    agrees((top[whole], ranker(broken, 8, struck, None)[1][whole]), wanted(answers, vectors, None, struck)[whole], 8)


def test_all_but_a_few_are_struck() -> None:
    vectors, answers = vectors_of("normal", 20_000), torch.randn(2, WIDTH)
    struck = torch.cat([torch.arange(3, 9_000), torch.arange(9_004, 20_000)]).expand(2, -1)
    agrees(bounded(vectors)(answers, 6, struck, None), wanted(answers, vectors, None, struck), 6)


@pytest.mark.parametrize("with_bias", [False, True])
def test_candidates_are_the_only_ones_that_are_scored(with_bias: bool) -> None:
    vectors = vectors_of("normal", 20_000)
    bias = torch.randn(20_000) if with_bias else None
    answers = torch.randn(3, WIDTH)
    struck = torch.tensor([[9, 11], [0, 0], [11, 0]])
    candidates = torch.tensor([[11, 9, 8, 8, 4_000, 0], [2, 0, 0, 0, 0, 0], [11, 12, 0, 12, 19_999, 1]])
    for ranker in (reload(VectorRanker(vectors, bias, RESERVED)), bounded(vectors, bias)):
        for columns in (6, 20, 5_000):  # few, and so many that the whole catalogue is scored
            rows = torch.nn.functional.pad(candidates, [0, columns - 6])
            scores = wanted(answers, vectors, bias, struck)
            some = torch.full_like(scores, -INF).scatter(1, rows, 0) + scores
            for k in (1, 4, 7):
                agrees(ranker(answers, k, struck, rows), some, k)
        top, ids = ranker(answers, 2, struck, candidates[:, :0])
        assert top.eq(-INF).all()
        assert ids.eq(0).all()
        one_list = ranker(answers, 2, struck, candidates[0])[1]
        assert torch.equal(one_list, ranker(answers, 2, struck, candidates[:1].expand(3, -1))[1])
        with pytest.raises(Exception, match="not in the catalogue"):
            ranker(answers, 2, struck, torch.tensor([20_000]))


def test_two_stages_find_what_one_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    for items in (100, 40_000, 40_123):
        scores = torch.randn(3, items, generator=generator)
        scores[1] = scores[1].round()  # many ties
        scores[2, 5:] = -INF
        for k in (1, 20, items):
            (top, ids), (expected, _) = best_by_blocks(scores, k), best(scores, k)
            assert torch.equal(top, expected)
            assert torch.equal(scores.gather(1, ids)[top > -INF], top[top > -INF])
            assert ids[top == -INF].eq(0).all()
            assert all(len(row[row > 0].unique()) == len(row[row > 0]) for row in ids)
    with pytest.raises(ValueError, match="k must be at least 1"):
        best_by_blocks(scores, 0)


def test_bounds_are_for_large_catalogues_in_single_precision() -> None:
    assert type(served(VectorRanker(vectors_of("normal", 1_000), None, RESERVED))) is VectorRanker
    assert type(served(VectorRanker(vectors_of("nothing", 100_000).double(), None, RESERVED))) is VectorRanker


def shares_of(items: int, sessions: int) -> tuple[Tensor, Tensor]:
    """Shares of evidence: some items several times, some places empty, the reserved ones among them."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(items, (sessions, 40), generator=generator)
    ids[:, 20:30] = ids[:, :10]
    shares = 3 * torch.rand(ids.shape, generator=generator)
    ids[:, 35:], shares[:, 35:] = 0, 0
    ids[0, 34] = RESERVED - 1
    return ids, shares


@pytest.mark.parametrize("items", [60, 20_000])
@pytest.mark.parametrize("candidates", [0, 30])
def test_what_is_added_is_ranked(items: int, candidates: int) -> None:
    vectors, answers = vectors_of("normal", items), torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    ids, shares = shares_of(items, 5)
    plain = VectorRanker(vectors, None, RESERVED)
    best_before = plain(answers, 20, torch.zeros(5, 0, dtype=torch.long), None)[1]
    # Some of the best without it get more, and some that get more are struck.
    ids[:, 10:15] = best_before[:, :5]
    struck = torch.cat([ids[:, :3], best_before[:, 3:6]], 1)
    scores = wanted(answers, vectors, None, struck).scatter_add(1, ids, shares.double())
    chosen = None
    if candidates:
        chosen = torch.cat([best_before[:, :20], ids[:, :10]], 1)
        scores = torch.full_like(scores, -INF).scatter(1, chosen, scores.gather(1, chosen))
    for ranker in (reload(plain), bounded(vectors), plain):
        agrees(ranker(answers, 20, struck, chosen, (ids, shares)), scores, 20)
