"""How much counts weigh beside what the network says: learned on the validation window.

The weight of a pair (i, j) is ``a1 log(1 + f(i, j) / e1) + a2 log(1 + s(i, j) / e2)`` with the two kinds of
`modeling.evidence.pairs`. Of these, the decay over the session's events, and a scale of the network's scores, the
cross-entropy of the last items of the validation window is minimised over the whole catalogue. The training window
could not say: its sessions are the counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.progress import step
from modeling.baselines import TrainingWindow
from modeling.data import Sessions
from modeling.evaluation import ranks
from modeling.evidence.module import ItemEvidence, recent
from modeling.evidence.pairs import Pairs, count_pairs
from modeling.fitting import fit
from modeling.loading import SessionStream
from modeling.model import Model
from modeling.ranking import strike
from modeling.ranking_metric import GOAL, summary
from modeling.sequence import lengths, without_last
from modeling.settings import ModelSettings

DEPTH = 8
# Pairs of an item, and of an item of a catalogue so large that they would need more memory than its vectors do.
WIDTH, NARROW, LARGE = 64, 32, 200_000
# Six numbers are learned: more sessions would say no more.
_SESSIONS = 4096
_SCORES_AT_ONCE = 1 << 24
# The partition of what no evidence touches is computed for these scales, and in between by a parabola.
_SCALES = (0.4, 0.8, 1.2)
_NOTHING = -1e9


@dataclass(frozen=True)
class _Problem:
    """Validation sessions, with those items told apart that evidence can reach: the slots.

    Attributes
    ----------
    scores : Tensor [M]
        The network's, of each slot; far below all others where the item is struck.
    owner : Tensor [M], int64
        The session of each slot.
    target : Tensor [S], int64
        The slot of what came.
    rest : Tensor [S, 3]
        Log of the sum of ``exp(scale * score)`` over all other items, for each of `_SCALES`.
    pair, steps, slot : Tensor [E], int64
        Each share of evidence: which pair says it, how many events before the last, of which slot.
    """

    scores: Tensor
    owner: Tensor
    target: Tensor
    rest: Tensor
    pair: Tensor
    steps: Tensor
    slot: Tensor


def fit_with_evidence(
    model: Model,
    train: Sessions | SessionStream,
    counted: Sessions,
    valid: Sessions,
    settings: ModelSettings,
    device: torch.device,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What ``nextitem train`` and every trial of a search do: `modeling.fitting.fit`, then `add_evidence` if asked for.

    Parameters
    ----------
    train, counted : Sessions or SessionStream, Sessions
        The training window as `modeling.fitting.training_window` gives it.
    model, valid, settings, device, on_epoch
        As for `modeling.fitting.fit`.

    Returns
    -------
    list of dict, dict
        History and report of `fit`. The report has ``"evidence"``, what `add_evidence` says, where it was asked for,
        and ``"valid"`` is of the model as a whole; the history is the network's.
    """
    history, report = fit(model, train, valid, settings, device, on_epoch)
    if settings.evidence:
        added = add_evidence(model, counted, valid, settings.exclude, device, report["valid"][GOAL])
        report = {**report, "evidence": added, "valid": added["valid"] if added else report["valid"]}
    return history, report


def add_evidence(
    model: Model,
    train: Sessions,
    valid: Sessions,
    exclude: str,
    device: torch.device | str = "cpu",
    before: float | None = None,
) -> dict[str, Any] | None:
    """Give a trained model evidence of counts, where the validation window is ranked better with it.

    Parameters
    ----------
    model : Model
        On `device`, left in evaluation mode. Evidence that it has is replaced.
    train, valid : Sessions
        What is counted, and what says how much it weighs.
    exclude : {"none", "last", "seen"}
        Items of the session that are not recommended.
    device : torch.device or str
        Of the model.
    before : float, optional
        NDCG@20 on validation without evidence, where it is known; measured otherwise.

    Returns
    -------
    dict or None
        ``{"pairs", "decay", "before", "valid"}``: how many pairs have a weight, the weight of an event beside the one
        after it, NDCG@20 on validation without evidence, and all metrics on validation with it. None where there is
        nothing to count or nothing to measure, or it ranks no better: the model has no evidence then.
    """
    item, limit = model.inputs.item, model.max_sequence_length
    model.eval()
    model.evidence = None
    with step("Weighing counts") as bar:
        pairs = count_pairs(TrainingWindow(train, item.name, item.cardinality, item.reserved))
        problem = _problem(model, pairs, _some(valid), exclude, device)
        if problem is None:
            return None
        weights, decay = _solve(problem, pairs)

        def metrics() -> dict[str, float]:
            found = ranks(model, valid, item, limit, exclude, device=device)
            return summary(found[~found.isnan()])

        if before is None:
            before = metrics()[GOAL]
        evidence = heaviest(pairs, weights, item.cardinality, decay).to(device)
        model.evidence = evidence
        after = metrics()
        helps = after[GOAL] > before
        bar.say(f"valid NDCG@20 {before:.4f}, with counts {after[GOAL]:.4f}{'' if helps else ': left out'}")
        if not helps:
            model.evidence = None
            return None
    return {"pairs": int((evidence.weights > 0).sum()), "decay": evidence.decay, "before": before, "valid": after}


def _some(valid: Sessions) -> Sessions:
    """At most `_SESSIONS` of them, evenly over the window."""
    kept = torch.zeros(len(valid), dtype=torch.bool)
    kept[torch.linspace(0, len(valid) - 1, min(_SESSIONS, len(valid))).long()] = True
    return valid.where(kept)


def _problem(model: Model, pairs: Pairs, valid: Sessions, exclude: str, device: torch.device | str) -> _Problem | None:
    item, limit = model.inputs.item, model.max_sequence_length
    size = item.cardinality
    offsets = torch.searchsorted(pairs.first, torch.arange(size + 1))
    parts: list[tuple[Tensor, ...]] = []
    sessions = slots = 0
    with torch.inference_mode():
        for _, batch in valid.batches(max(1, min(256, _SCORES_AT_ONCE // size)), limit):
            batch = {name: value.to(device) for name, value in batch.items()}
            valid_rows = lengths(batch[item.name]) >= 2
            past, target = without_last(batch, item.name, batch.keys() - valid.whole)
            items = past[item.name]
            scores = strike(model(past), items, exclude).cpu()
            items, target, valid_rows = items.cpu(), target.cpu(), valid_rows.cpu()
            valid_rows &= (target >= item.reserved) & (scores.gather(1, target[:, None])[:, 0] > float("-inf"))
            scores, items, target = scores[valid_rows], items[valid_rows], target[valid_rows]
            if not len(items):
                continue
            row, steps, pair = _shares(items, offsets)
            keys = torch.cat([row * size + pairs.second[pair], torch.arange(len(items)) * size + target])
            own, where = torch.unique(keys, return_inverse=True)
            owner = own // size
            at = scores.view(-1)[own].clamp(min=_NOTHING)
            scores.view(-1)[own] = float("-inf")
            rest = torch.stack([(scores * scale).logsumexp(1) for scale in _SCALES], 1).clamp(min=_NOTHING)
            parts.append(
                (at, owner + sessions, where[len(pair) :] + slots, rest, pair, steps, where[: len(pair)] + slots)
            )
            sessions, slots = sessions + len(items), slots + len(own)
    if not parts or not any(len(found[4]) for found in parts):
        return None
    return _Problem(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _shares(items: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which pairs speak for which sessions [B, L]: rows, events before the last, and pairs, each [E]."""
    last = recent(items, 1 + torch.arange(DEPTH))
    begin, count = offsets[last].flatten(), (offsets[last + 1] - offsets[last]).flatten()
    which = torch.repeat_interleave(torch.arange(len(count)), count)
    within = torch.arange(len(which)) - torch.repeat_interleave(count.cumsum(0) - count, count)
    return which // DEPTH, which % DEPTH, begin[which] + within


def _weights(free: Tensor, kinds: Tensor) -> Tensor:
    """Of pairs [P], from the free numbers: two logarithms of amounts, two of the points where counts begin to tell."""
    return (free[:2].exp() * torch.log1p(kinds * (-free[2:4]).exp())).sum(1)


def _solve(problem: _Problem, pairs: Pairs) -> tuple[Tensor, float]:
    """Weights of all pairs beside the network's own scores, and the decay."""
    free = torch.tensor([-1.0, -1.0, -4.0, -4.0, 0.0, 0.0], requires_grad=True)
    used, pair = torch.unique(problem.pair, return_inverse=True)
    kinds, sessions = pairs.kinds[used], len(problem.target)
    optimizer = torch.optim.LBFGS([free], max_iter=30, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        share = _weights(free, kinds)[pair] * (torch.sigmoid(free[4]) ** torch.arange(DEPTH))[problem.steps]
        scale = free[5].exp()
        at = problem.scores * scale + torch.zeros_like(problem.scores).index_add(0, problem.slot, share)
        rest = _parabola(problem.rest, scale)
        with torch.no_grad():
            largest = rest.scatter_reduce(0, problem.owner, at, "amax")
        powers = (rest - largest).exp().index_add(0, problem.owner, (at - largest[problem.owner]).exp())
        value = (largest + powers.log() - at[problem.target]).sum() / sessions
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        # Ranks depend on the ratio alone: the network's scores stay as they are.
        return _weights(free, pairs.kinds) / free[5].exp(), float(torch.sigmoid(free[4]))


def _parabola(values: Tensor, at: Tensor) -> Tensor:
    """Through values [S, 3] at `_SCALES`, which are evenly apart."""
    x = (at - _SCALES[1]) / (_SCALES[1] - _SCALES[0])
    low, middle, high = values.unbind(1)
    return middle + x * (high - low) / 2 + x * x * (high - 2 * middle + low) / 2


def heaviest(pairs: Pairs, weights: Tensor, catalogue: int, decay: float) -> ItemEvidence:
    """Evidence of the heaviest pairs of each item.

    Parameters
    ----------
    pairs : Pairs
        What was counted.
    weights : Tensor [P], float32
        Of the pairs; those that are not above 0 are left out.
    catalogue, decay
        As for `ItemEvidence`.
    """
    width = WIDTH if catalogue <= LARGE else NARROW
    order = torch.argsort(weights, descending=True, stable=True)
    order = order[torch.argsort(pairs.first[order], stable=True)]
    first = pairs.first[order]
    begin = torch.searchsorted(first, torch.arange(catalogue))
    kept = order[torch.arange(len(order)) - begin[first] < width]
    kept = kept[weights[kept] > 0]
    made: ItemEvidence = ItemEvidence.from_pairs(
        pairs.first[kept], pairs.second[kept], weights[kept], catalogue, DEPTH, decay
    )
    return made
