"""Losses that look at a sample of the catalogue: their cost does not grow with the number of items.

The negatives are shared by all targets of a batch, so only their rows of the item table are read, and scores are one
small matrix product. A target's own item among the negatives never counts against it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modeling.losses.base import Loss
from modeling.losses.cross_entropy import linear_cross_entropy
from modeling.losses.samplers import Sampler, sampler_from
from modeling.serialization import part


class SampledLoss(Loss):
    """Base of the sampled losses.

    They sample only in training. In evaluation mode (``module.eval()``) each gives the exact cross-entropy over the
    catalogue instead: a number without chance, that can be compared between losses.

    Parameters
    ----------
    n_samples : int
        Negatives a batch.
    sampler : str or Sampler
        A name of `sampler_registry`: "uniform", "log-uniform", "frequency", "in-batch".
    """

    def __init__(self, n_samples: int, sampler: str | Sampler) -> None:
        super().__init__()
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, not {n_samples}")
        self.n_samples = n_samples
        self.sampler = sampler_from(sampler)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"n_samples": self.n_samples, "sampler": self.sampler}

    def build(self, cardinality: int, reserved: int) -> None:
        """Tell the sampler."""
        self.sampler.build(cardinality, reserved)

    def compare(self, positive: Tensor, negative: Tensor, hit: Tensor, log_count: Tensor, items: int) -> Tensor:
        """Loss of each target [N].

        Parameters
        ----------
        positive : Tensor [N], float
            Scores of the targets.
        negative : Tensor [N, n], float
            Scores of the negatives.
        hit : Tensor [N, n], bool
            Where a negative is the target itself; it must not count.
        log_count : Tensor [n], float
            See `Sampler.draw`.
        items : int
            How many items there are.
        """
        raise NotImplementedError

    def forward(
        self, answers: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, reserved: int = 0
    ) -> Tensor:
        """See `Loss.forward`."""
        own = targets - reserved
        if not self.training:
            return linear_cross_entropy(answers, weight[reserved:], bias[reserved:] if bias is not None else None, own)
        items = weight.shape[0] - reserved
        drawn, log_count = self.sampler.draw(self.n_samples, items, own)
        rows = torch.cat([targets, drawn + reserved])
        vectors = weight.index_select(0, rows)
        positive = (answers * vectors[: len(own)]).sum(1)
        negative = answers @ vectors[len(own) :].T
        if bias is not None:
            biases = bias.index_select(0, rows)
            positive, negative = positive + biases[: len(own)], negative + biases[len(own) :]
        hit = own[:, None] == drawn
        return self.compare(positive, negative, hit, log_count.to(negative.dtype), items).mean()


@part
class SampledSoftmax(SampledLoss):
    """Cross-entropy whose sum over the catalogue is estimated from a sample, by importance sampling.

    From the score of each negative the logarithm of its expected count is subtracted; the target's own score stays
    as it is, for the target is in the sum for certain. So the sum ``exp(target) + sum of exp(negative) / count`` is an
    unbiased estimate of the full one, and the gradient goes to the full one as negatives grow (Bengio and Senecal,
    IEEE Transactions on Neural Networks 2008; Jean et al., ACL 2015; for batches as samples Yi et al., RecSys 2019).

    Parameters
    ----------
    n_samples : int
        Negatives a batch.
    sampler : str or Sampler
        See `SampledLoss`.
    log_q_correction : bool
        Whether to subtract it; without it the negatives' softmax is learnt as it is.
    """

    name = "sampled-softmax"

    def __init__(
        self, n_samples: int = 100, sampler: str | Sampler = "log-uniform", log_q_correction: bool = True
    ) -> None:
        super().__init__(n_samples, sampler)
        self.log_q_correction = log_q_correction

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().config(), "log_q_correction": self.log_q_correction}

    def compare(self, positive: Tensor, negative: Tensor, hit: Tensor, log_count: Tensor, items: int) -> Tensor:
        """See `SampledLoss.compare`."""
        if self.log_q_correction:
            negative = negative - log_count
        scores = torch.cat([positive[:, None], negative.masked_fill(hit, -math.inf)], dim=1)
        return scores.logsumexp(1) - positive


@part
class GeneralisedBCE(SampledLoss):
    """gBCE of gSASRec (Petrov and Macdonald, RecSys 2023): binary cross-entropy that is not overconfident.

    With k negatives of C items the sampling rate is ``a = k / (C - 1)``. The target's probability is raised to
    ``b = a (t (1 - 1 / a) + 1 / a)``; the loss is ``-(b log s(target) + sum of log(1 - s(negative))) / (k + 1)``.

    Parameters
    ----------
    n_samples : int
        Negatives a batch, k.
    t : float
        Calibration, 0 (plain binary cross-entropy) to 1 (scores become those of the full softmax).
    sampler : str or Sampler
        See `SampledLoss`; the theory is for "uniform".
    """

    name = "gbce"

    def __init__(self, n_samples: int = 256, t: float = 0.75, sampler: str | Sampler = "uniform") -> None:
        super().__init__(n_samples, sampler)
        if not 0 <= t <= 1:
            raise ValueError(f"t must be in [0, 1], not {t}")
        self.t = t

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().config(), "t": self.t}

    def compare(self, positive: Tensor, negative: Tensor, hit: Tensor, log_count: Tensor, items: int) -> Tensor:
        """See `SampledLoss.compare`."""
        # Drawn with replacement, more negatives than items are possible: then the rate is above 1, and as meaningful.
        rate = negative.shape[1] / max(1, items - 1)
        beta = rate * (self.t * (1 - 1 / rate) + 1 / rate)
        against = F.softplus(negative).masked_fill(hit, 0).sum(1)
        return (against - beta * F.logsigmoid(positive)) / ((~hit).sum(1) + 1)
