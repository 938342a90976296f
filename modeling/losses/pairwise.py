"""Losses that compare the target with the strongest negatives (Hidasi and Karatzoglou, CIKM 2018).

Each negative j weighs ``w_j``, its share in the softmax over the negatives' scores, so many weak negatives do not
drown the few that matter. Both are for negatives that are shared by the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modeling.losses.sampled import SampledLoss
from modeling.losses.samplers import Sampler
from modeling.serialization import part

# Far below every score, and finite: what is infinite makes gradients of weight 0 undefined.
_LOW = -1e4


def _log_weights(negative: Tensor, hit: Tensor) -> Tensor:
    """Logarithm of the softmax over the negatives that are not the target itself."""
    return torch.where(hit, negative.detach().min() + _LOW, negative).log_softmax(1)


@part
class BPRMax(SampledLoss):
    """BPR-max: ``-log sum_j w_j s(r - r_j) + regularization sum_j w_j r_j^2``, s the logistic function.

    Parameters
    ----------
    n_samples : int
        Negatives a batch.
    regularization : float
        How much the negatives' scores are drawn to 0.
    sampler : str or Sampler
        See `SampledLoss`.
    """

    name = "bpr-max"

    def __init__(self, n_samples: int = 256, regularization: float = 1.0, sampler: str | Sampler = "uniform") -> None:
        super().__init__(n_samples, sampler)
        if regularization < 0:
            raise ValueError(f"regularization must be 0 or more, not {regularization}")
        self.regularization = regularization

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().config(), "regularization": self.regularization}

    def compare(self, positive: Tensor, negative: Tensor, hit: Tensor, log_count: Tensor, items: int) -> Tensor:
        """See `SampledLoss.compare`."""
        weights = _log_weights(negative, hit)
        won = (weights + F.logsigmoid(positive[:, None] - negative)).logsumexp(1)
        drawn_to_zero = (weights.exp() * negative**2).sum(1)
        return (self.regularization * drawn_to_zero - won).masked_fill(hit.all(1), 0)


@part
class TOP1Max(SampledLoss):
    """TOP1-max: ``sum_j w_j (s(r_j - r) + s(r_j^2))``, s the logistic function.

    Parameters
    ----------
    n_samples : int
        Negatives a batch.
    sampler : str or Sampler
        See `SampledLoss`.
    """

    name = "top1-max"

    def __init__(self, n_samples: int = 256, sampler: str | Sampler = "uniform") -> None:
        super().__init__(n_samples, sampler)

    def compare(self, positive: Tensor, negative: Tensor, hit: Tensor, log_count: Tensor, items: int) -> Tensor:
        """See `SampledLoss.compare`."""
        lost = torch.sigmoid(negative - positive[:, None]) + torch.sigmoid(negative**2)
        return (_log_weights(negative, hit).exp() * lost).sum(1).masked_fill(hit.all(1), 0)
