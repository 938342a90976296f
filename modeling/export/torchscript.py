"""The model that is served: TorchScript that needs nothing but torch.

``torch.jit.load("model.pt")(inputs, k, excluded, candidates)`` takes a dictionary of right-padded columns [B, L], for
any B and L, and returns ``(scores [B, k], ids [B, k])``, best first. The two lists of item ids may be left out.
"""

import logging
import warnings
from pathlib import Path
from typing import Any, Optional  # TorchScript reads this spelling

import torch
from torch import Tensor, nn

from modeling.evidence.module import ItemEvidence
from modeling.export.rankers import BoundedRanker, ScoreRanker, VectorRanker, served
from modeling.ranking import EXCLUDE, struck_ids
from modeling.synthetic import random_columns
from modeling.tasks.next_item import NextItemPredictionTask

MODEL_PT = "model.pt"


class Recommender(nn.Module):
    """Best items for sessions, around an encoder that is eager or traced: one code for both.

    Parameters
    ----------
    encoder : nn.Module
        From columns [B, L], L at most `limit`, to what `ranker` takes: vectors [B, D] or scores [B, C].
    ranker : nn.Module
        See `modeling.export.rankers`.
    catalogue : int
        Item ids are below it.
    item : str
        The item column.
    names, session_names : list of str
        The columns of events, and those of whole sessions.
    limit : int
        The most recent events that the encoder takes.
    exclude : {"none", "last", "seen"}
        Items of the session that are not recommended.
    evidence : ItemEvidence, optional
        What is added to the scores.
    """

    def __init__(
        self,
        encoder: nn.Module,
        ranker: nn.Module,
        catalogue: int,
        item: str,
        names: list[str],
        session_names: list[str],
        limit: int,
        exclude: str,
        evidence: Optional[ItemEvidence] = None,  # noqa: UP045
    ) -> None:
        super().__init__()
        if exclude not in EXCLUDE:
            raise ValueError(f"exclude must be one of {', '.join(EXCLUDE)}, not {exclude!r}")
        self.encoder = encoder
        self.ranker = ranker
        self.catalogue = catalogue
        self.item = item
        self.names = names
        # TorchScript cannot tell the type of an empty list of names, so it holds one name at least.
        self.session_names = [*session_names, ""]
        self.limit = limit
        self.exclude = exclude
        self.evidence = evidence

    def forward(
        self,
        inputs: dict[str, Tensor],
        k: int,
        excluded: Optional[Tensor] = None,  # noqa: UP045
        candidates: Optional[Tensor] = None,  # noqa: UP045
    ) -> tuple[Tensor, Tensor]:
        """Recommend.

        Parameters
        ----------
        inputs : dict of Tensor
            int64 codes and float32 numbers [B, L], right-padded with 0, L at least 1; vectors [B, L, V]; features
            of the session [B] or [B, V].
        k : int
            How many, at least 1.
        excluded, candidates : Tensor [M] or [B, M], int64, optional
            Item ids that are not recommended; ids of the only ones that may be. A row each is filled up with 0.

        Returns
        -------
        Tensor [B, k], float32
            Scores, descending; -inf where nothing is left to recommend.
        Tensor [B, k], int64
            Item ids; 0 where nothing is left.

        Raises
        ------
        ValueError
            When `k` is below 1, or a list has an id that is not in the catalogue.
        """
        items = inputs[self.item]
        if items.shape[0] == 0:
            return torch.zeros([0, k]), torch.zeros([0, k], dtype=torch.long)
        n = (items != 0).sum(1)
        width = max(1, min(int(n.max()), self.limit))
        recent: dict[str, Tensor] = {}
        if items.shape[1] <= self.limit:
            for name in self.names:
                recent[name] = inputs[name].narrow(1, 0, width)
        else:
            index = (n - self.limit).clamp(min=0).unsqueeze(1) + torch.arange(width, device=items.device)
            for name in self.names:
                column = inputs[name]
                if column.dim() == 2:
                    recent[name] = column.gather(1, index)
                else:
                    recent[name] = column.gather(1, index.unsqueeze(2).expand(-1, -1, column.shape[2]))
        for name in self.session_names:
            if name != "":
                recent[name] = inputs[name]
        struck = struck_ids(items, self.exclude, excluded, self.catalogue)
        more: Optional[tuple[Tensor, Tensor]] = None  # noqa: UP045
        if self.evidence is not None:
            more = self.evidence(recent[self.item])
        found: tuple[Tensor, Tensor] = self.ranker(self.encoder(recent), k, struck, candidates, more)
        return found


class _Scores(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.head = model.head

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.head.scores(inputs)
        return scores


class _Queries(_Scores):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        queries: Tensor = self.head.queries(inputs)
        return queries


def recommender(model: Any, exclude: str) -> Recommender:
    """The eager recommender of a `Model`."""
    task = model.head.task
    encoder: nn.Module = _Scores(model)
    ranker: nn.Module = ScoreRanker()
    # A task of one's own may score as it likes.
    if type(task).scores is NextItemPredictionTask.scores and type(task).predict is NextItemPredictionTask.predict:
        vectors, bias = task.catalogue(model.inputs)
        encoder, ranker = _Queries(model), VectorRanker(vectors, bias, task.reserved)
    return _around(encoder, ranker, model, exclude)


def _around(encoder: nn.Module, ranker: nn.Module, model: Any, exclude: str) -> Recommender:
    events, sessions = _names(model)
    item, limit = model.inputs.item, model.max_sequence_length - 1
    catalogue, evidence = item.cardinality, getattr(model, "evidence", None)
    return Recommender(encoder, ranker, catalogue, item.name, events, sessions, limit, exclude, evidence).eval()


def _names(model: Any) -> tuple[list[str], list[str]]:
    """The columns that the model needs: of events, and of sessions."""
    features = model.features
    return [f.name for f in features if f.sequence], [f.name for f in features if not f.sequence]


def sample_inputs(model: Any, batch: int, length: int, seed: int = 0) -> dict[str, Tensor]:
    """Random sessions of 1 to `length` events, the first of full length: the columns that the model needs."""
    n = torch.randint(1, length + 1, (batch,), generator=torch.Generator().manual_seed(seed))
    n[0] = length
    return random_columns(model.features, n, seed)


def export_torchscript(model: Any, path: Path | str, exclude: str = "none") -> None:
    """Write ``model.pt`` and check that it answers as the model does, at other batch sizes and lengths.

    Parameters
    ----------
    model : Model
        On any device; what is written runs on the CPU.
    path : Path or str
        The file.
    exclude : {"none", "last", "seen"}
        See `Recommender`.

    Raises
    ------
    RuntimeError
        When the written model's scores differ from the model's.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.cpu().eval()
    eager = recommender(model, exclude)
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # The tracer warns of every shape that it makes constant; `_check` finds those that matter.
            warnings.simplefilter("ignore")
            example = sample_inputs(model, 3, min(4, eager.limit))
            traced = torch.jit.trace(eager.encoder, (example,), strict=False, check_trace=False)
            ranker = served(eager.ranker)
            scripted = torch.jit.script(_around(traced, ranker, model, exclude))
            # What makes itself ready when it is loaded cannot be a constant.
            kept = ["ranker.bounds"] if isinstance(ranker, BoundedRanker) else []
            frozen = torch.jit.freeze(scripted.eval(), kept)
            torch.jit.save(frozen, str(path))
            _check(model, eager, torch.jit.load(str(path)))
    finally:
        logger.setLevel(level)
        model.to(device).train(was_training)


def _check(model: Any, eager: Recommender, exported: Any) -> None:
    limit = eager.limit
    item = model.inputs.item
    for seed, (batch, length) in enumerate([(1, 1), (1, limit), (5, limit), (2, limit + 3), (9, max(1, limit // 2))]):
        inputs = sample_inputs(model, batch, length, seed)
        (scores, ids), (expected, expected_ids) = (f(inputs, item.cardinality) for f in (exported, eager))
        # Compare by item: equal scores may come in either order.
        order, expected_order = ids.argsort(dim=1, stable=True), expected_ids.argsort(dim=1, stable=True)
        same = torch.equal(ids.gather(1, order), expected_ids.gather(1, expected_order))
        given, wanted = scores.gather(1, order), expected.gather(1, expected_order)
        # The few best, with and without lists, may be found in another way than all.
        few = min(20, item.cardinality)
        some = torch.randint(item.cardinality, (batch, 2 * few), generator=torch.Generator().manual_seed(seed))
        for lists in ((None, None), (expected_ids[:, : few // 2], None), (some[:, :few], some)):
            same = same and _close(exported(inputs, few, *lists)[0], eager(inputs, few, *lists)[0])
        if not same or not _close(given, wanted):
            raise RuntimeError(
                f"the exported model differs from the trained one for {batch} sessions of up to {length} events: "
                "it was not written"
            )


def _close(given: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(given, wanted, rtol=1e-4, atol=1e-4)
