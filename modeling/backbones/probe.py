"""What an unknown backbone does, found out by experiment: which way it looks, and what disturbs it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modeling.backbones.feed import Feed, computable, first_output, fit_length
from modeling.backbones.precision import double, loud

_LENGTH, _SHORT = 7, 4
# Shares of the size of the vectors: what rounding in double precision may change, and what an influence changes.
_ROUNDING, _INFLUENCE = 1e-9, 1e-6

Run = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Probe:
    """What the experiments say.

    Attributes
    ----------
    width : int
        Of the vectors that come out.
    looks_back, looks_ahead : bool
        Whether the vector of a position depends on earlier and on later ones.
    fixed : bool
        Whether padding or length change the answers, so that it must always be fed the same length, zeros behind
        the session.
    """

    width: int
    looks_back: bool
    looks_ahead: bool
    fixed: bool

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @property
    def objectives(self) -> tuple[str, ...]:
        """What it can be trained with."""
        return ("mlm", "rtd") if self.looks_ahead else ("clm",)

    def refuse(self, name: str, masking: str) -> None:
        """Say no to an objective that the backbone cannot honour.

        Raises
        ------
        ValueError
            With the backbone, the objective and the reason.
        """
        if masking in self.objectives:
            return
        if masking == "plm":
            why = "it has no query stream that ignores its own position"
        elif self.looks_ahead:
            why = "it looks ahead, so it sees the items that it would have to predict"
        else:
            why = "it cannot look ahead"
        supported = ", ".join(self.objectives)
        raise ValueError(f"{name} cannot serve masking {masking!r}: {why}; use {supported}")


def input_width(transformer: Any, config: Any = None) -> int:
    """Width of the vectors that a backbone takes: that of its own embedding table, else what its configuration says.

    Raises
    ------
    ValueError
        When neither says, for instance because the configuration only holds those of several parts.
    """
    try:
        table = transformer.get_input_embeddings()
        return int(table.weight.shape[1])
    except (AttributeError, NotImplementedError, IndexError):
        pass
    config = getattr(transformer, "config", None) or config
    for name in ("embedding_size", "hidden_size", "d_model", "n_embd"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    if hasattr(config, "text_config"):
        raise ValueError(
            f"{type(transformer).__name__} has several parts: give its text part (config.text_config) alone"
        )
    raise ValueError(f"{type(transformer).__name__} does not say how wide its vectors are: give it config.hidden_size")


def probe(transformer: nn.Module, config: Any = None) -> Probe:
    """Experiment on a copy of a backbone.

    The copy gets noise on every weight and computes in double precision; the given network stays as it is. Sessions
    of random vectors are disturbed at one place, padded, shortened and taken apart.

    Parameters
    ----------
    transformer : nn.Module
        Its ``forward`` takes ``inputs_embeds`` [B, L, width].
    config : PreTrainedConfig, optional
        The configuration, where the network itself does not have it.

    Raises
    ------
    ValueError
        When no objective can use it: with the reason.
    """
    name = type(transformer).__name__
    width = input_width(transformer, config)
    subject = copy.deepcopy(transformer)
    feed = Feed(transformer)

    def run(values: Tensor, attend: Tensor) -> Tensor:
        with torch.no_grad(), double(), computable(subject, values):
            return first_output(subject(**feed(subject, values, attend, False, None)))

    def run_fixed(values: Tensor, attend: Tensor) -> Tensor:
        longer, attended = fit_length(values, attend, _LENGTH + 1)
        return run(longer, attended)[:, : values.shape[1]]

    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, _LENGTH, width, generator=generator, dtype=torch.float64)
    attend = torch.ones(3, _LENGTH, dtype=torch.bool)
    for scale in (1.0, 0.3, 0.1):
        subject.load_state_dict(transformer.state_dict())
        loud(subject.cpu(), scale=scale).double().eval()
        found = _answer(name, run, values, attend)
        if torch.isfinite(found).all():
            break
    else:
        raise ValueError(f"{name} cannot be used: its vectors are not finite")
    if (run(values, attend) - found).abs().max() > _ROUNDING * found.abs().max():
        raise ValueError(f"{name} cannot be used: it answers differently each time")
    problem = _problem(run, values, attend)
    fixed = problem is not None
    if fixed:
        problem = _problem(run_fixed, values, attend)
        if problem is not None:
            raise ValueError(f"{name} cannot be used: {problem}")
    back, ahead = _looks(run_fixed if fixed else run, values, attend)
    if not back:
        raise ValueError(f"{name} cannot be used: what it says of an event does not depend on the events before")
    return Probe(int(found.shape[2]), back, ahead, fixed)


def _answer(name: str, run: Run, values: Tensor, attend: Tensor) -> Tensor:
    try:
        found = run(values, attend)
    except Exception as error:  # whatever the network raises
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(
            f"{name} cannot be fed with vectors: {type(error).__name__}: {lines[0] if lines else ''}"
        ) from error
    if found.dim() != 3 or found.shape[:2] != values.shape[:2]:
        raise ValueError(
            f"{name} cannot be used: {list(values.shape)} became {list(found.shape)}, not a vector an event"
        )
    return found


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= _ROUNDING * a.abs().max())


def _problem(run: Run, values: Tensor, attend: Tensor) -> str | None:
    """What changes the answers although it must not, or None."""
    ragged = attend.clone()
    ragged[1, _SHORT:] = False
    ragged[2, 1:] = False
    try:
        together = run(values, ragged)
        for row, n in enumerate((_LENGTH, _SHORT, 1)):
            one = slice(row, row + 1)
            alone = run(values[one], ragged[one])
            if not _same(together[one, :n], alone[:, :n]):
                return "the other sessions of a batch change its answers"
            other = torch.where(ragged[one, :, None], values[one], -2 * values[one])
            if not _same(alone[:, :n], run(other, ragged[one])[:, :n]):
                return "what stands in the padding changes its answers"
            if not _same(alone[:, :n], run(values[one, :n], ragged[one, :n])):
                return "the amount of padding changes its answers"
    except Exception as error:
        return f"it fails on sessions of some lengths ({type(error).__name__})"
    return None


def _looks(run: Run, values: Tensor, attend: Tensor) -> tuple[bool, bool]:
    """Whether any position depends on earlier ones, and on later ones."""
    before = run(values, attend)
    back = ahead = False
    for place in range(_LENGTH):
        disturbed = values.clone()
        disturbed[:, place] *= -1.5
        change = (run(disturbed, attend) - before).abs().amax((0, 2)) / before.abs().max()
        ahead |= bool((change[:place] > _INFLUENCE).any())
        back |= bool((change[place + 1 :] > _INFLUENCE).any())
        # Between rounding and influence nothing is expected; it counts as looking ahead, to be safe.
        ahead |= bool((change[:place] > _ROUNDING).any())
    return back, ahead
