"""Where negative items come from. Each sampler can draw every item, and knows how often it draws it.

Items are numbered 0 to C - 1 here: reserved ids are already taken away. With each drawn item comes the logarithm of
its expected count, which the sampled softmax subtracts from the item's score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modeling.serialization import part

# Frequencies are kept as whole numbers of this sum: drawing by them is exact, in every floating-point mode.
_UNITS = 1 << 52


class Sampler(nn.Module):
    """Base of the samplers."""

    name = ""

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    def build(self, cardinality: int, reserved: int) -> None:
        """Learn how many ids there are, reserved ones included."""

    def draw(self, n: int, items: int, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Draw items that all targets of a batch share.

        Parameters
        ----------
        n : int
            How many.
        items : int
            How many items there are.
        targets : Tensor [N], int64
            The batch's items, 0 to `items` - 1.

        Returns
        -------
        Tensor [n], int64
            Items, drawn by torch's generator; one drawn twice is there twice.
        Tensor [n], float64
            Logarithm of the expected number of times that the item is among the n.
        """
        raise NotImplementedError


@part
class UniformSampler(Sampler):
    """Each item with the same probability; the expected count is n / C."""

    name = "uniform"

    def draw(self, n: int, items: int, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Sampler.draw`."""
        drawn = torch.randint(items, (n,), device=targets.device)
        return drawn, torch.full((n,), math.log(n / items), dtype=torch.double, device=targets.device)


@part
class LogUniformSampler(Sampler):
    """Zipf's law over the items' numbers; the expected count of item i is n log((i + 2) / (i + 1)) / log(C + 1).

    It suits a catalogue that is numbered by falling frequency, as NVTabular's Categorify does. Where it is not, the
    correction is as exact, only the negatives are a less telling choice.
    """

    name = "log-uniform"

    def draw(self, n: int, items: int, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Sampler.draw`."""
        # The inverse of the distribution function: P(item < i) = log(i + 1) / log(C + 1).
        u = torch.rand(n, dtype=torch.double, device=targets.device)
        drawn = ((u * math.log(items + 1)).exp().long() - 1).clamp(0, items - 1)
        return drawn, (n / math.log(items + 1) * torch.log1p(1 / (drawn.double() + 1))).log()


@part
class FrequencySampler(Sampler):
    """Each item by a given frequency; the expected count is n times its share.

    Parameters
    ----------
    frequencies : sequence of float or Tensor, optional
        By id: one for each of the catalogue's ids, of which the reserved ones' are ignored. One of 0 counts as the
        smallest other, for every item must be possible. They are saved with the weights of the model, so a model
        that is loaded needs none.
    power : float
        Frequencies are raised to it: 1 draws by popularity, 0 evenly.
    """

    name = "frequency"
    cumulative: Tensor

    def __init__(self, frequencies: Sequence[float] | Tensor | None = None, power: float = 1.0) -> None:
        super().__init__()
        self.power = power
        self._given = None if frequencies is None else torch.as_tensor(frequencies, dtype=torch.double).cpu()
        if self._given is not None and (
            self._given.dim() != 1 or not self._given.isfinite().all() or not (self._given >= 0).all()
        ):
            raise ValueError("frequencies must be one row of numbers that are 0 or more")
        # Sized by `build`, so that saved frequencies find their place.
        self.register_buffer("cumulative", torch.zeros(0, dtype=torch.long))

    def config(self) -> dict[str, Any]:
        """The power; frequencies are saved with the weights."""
        return {"power": self.power}

    def build(self, cardinality: int, reserved: int) -> None:
        """Take the shares of the items."""
        items = cardinality - reserved
        if self._given is None:
            self.cumulative = torch.zeros(items, dtype=torch.long)
            return
        if len(self._given) != cardinality:
            raise ValueError(f"there are {len(self._given)} frequencies, the catalogue has {cardinality} ids")
        own = self._given[reserved:]
        if not own.any():
            raise ValueError("the frequencies of all items are 0")
        own = torch.where(own > 0, own, own[own > 0].min()) ** self.power
        self.cumulative = (own / own.sum() * _UNITS).long().clamp(min=1).cumsum(0)

    def draw(self, n: int, items: int, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Sampler.draw`."""
        total = int(self.cumulative[-1]) if len(self.cumulative) == items else 0
        if not total:
            raise ValueError(f"the frequency sampler has no frequencies of {items} items: give FrequencySampler them")
        drawn = torch.searchsorted(self.cumulative, torch.randint(total, (n,), device=targets.device), right=True)
        units = self.cumulative[drawn] - torch.where(drawn > 0, self.cumulative[drawn - 1], 0)
        return drawn, (units.double() * (n / total)).log()


@part
class InBatchSampler(Sampler):
    """The batch's own targets, each once; the expected count is the share of the batches that hold the item.

    That share is counted over the batches so far (Yi et al., RecSys 2019, estimate it by a moving average, for a
    stream without epochs). Of more than n different targets n are drawn, which scales the expected count.
    """

    name = "in-batch"
    batches: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.register_buffer("seen", torch.zeros(0, dtype=torch.long))

    def build(self, cardinality: int, reserved: int) -> None:
        """Make room for the counts."""
        self.seen = torch.zeros(cardinality - reserved, dtype=torch.long)

    def draw(self, n: int, items: int, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Sampler.draw`; it may be fewer than n."""
        if len(self.seen) != items:
            raise ValueError(f"the in-batch sampler was built for {len(self.seen)} items, not {items}")
        drawn = targets.unique()
        self.batches += 1
        self.seen[drawn] += 1
        share = 1.0
        if len(drawn) > n:
            share = n / len(drawn)
            drawn = drawn[torch.randperm(len(drawn), device=drawn.device)[:n]]
        return drawn, (self.seen[drawn].double() * share / self.batches).log()


sampler_registry: dict[str, type[Sampler]] = {
    cls.name: cls for cls in (UniformSampler, LogUniformSampler, FrequencySampler, InBatchSampler)
}


def sampler_from(sampler: str | Sampler) -> Sampler:
    """A sampler, or the one of a name of `sampler_registry`.

    Raises
    ------
    ValueError
        When there is none of that name.
    """
    if isinstance(sampler, Sampler):
        return sampler
    if sampler not in sampler_registry:
        raise ValueError(f"there is no sampler {sampler!r}: take one of {', '.join(sampler_registry)}")
    return sampler_registry[sampler]()
