"""HSTU, which sums what it attends to instead of averaging it (Zhai et al., ICML 2024: https://arxiv.org/abs/2402.17152).

The paper's equations 1 to 3, with phi = SiLU, r a learnt number for each distance in positions and each bucket of
distances in time, and n the length that sessions may have::

    U, V, Q, K = split(phi(W_1 norm(x)))
    A = phi(Q K^T + r) / n            of each head; 0 for what comes later
    x = x + W_2 (norm(A V) * U)

No softmax: what one event is given is not taken from another, so the sums tell how much there was, too. U gates in
place of an inner layer. Dividing by the length of the batch would let padding change the scores; n is a constant here,
``max_position_embeddings``, as it is in the authors' code.

Times. Without ``time_feature``, r knows positions only. With it, the column of that name, which must be among the
model's features, says how long after the event before it each event came, as the logarithm of 1 + seconds:
``features: {time: [since_previous]}`` makes one. Features are normalised; ``time_mean`` and ``time_deviation`` say what
with, and the default is a column that is not. The time between two events is the sum of the gaps between them; bucket
b begins at exp(0.301 b) seconds. A request is made after the last event, whose own time is the latest that is known.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.activations import ACT2FN

from modeling.backbones.sasrec import first_weights

# A bucket's times lie within a factor of 1.35, as in the authors' code.
_STEP = 0.301
# The logarithm of two thousand years in seconds: double precision still counts seconds beside it.
_LONGEST = 25.0


class HSTUSettings(transformers.PreTrainedConfig):
    """Settings of `HSTU`.

    Parameters
    ----------
    hidden_size : int
        Width of the vectors, and of U, V, Q and K.
    num_attention_heads, num_hidden_layers : int
        Heads, which divide the width; layers.
    max_position_embeddings : int
        The longest session in events.
    hidden_act : str
        phi.
    dropout : float
        Of the vectors that come in, and of what each layer adds.
    layer_norm_eps, initializer_range : float
        Epsilon of the norms; standard deviation of the first weights.
    time_feature : str
        The column of times; none if empty. See the module.
    time_buckets : int
        How many there are; the last one has no end. 64 reach seven years.
    time_mean, time_deviation : float
        What the column was normalised with.
    """

    model_type = "hstu"

    hidden_size: int = 64
    num_attention_heads: int = 4
    num_hidden_layers: int = 2
    max_position_embeddings: int = 50
    hidden_act: str = "silu"
    dropout: float | int = 0.2
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    time_feature: str = ""
    time_buckets: int = 64
    time_mean: float = 0.0
    time_deviation: float = 1.0


def buckets(gaps: Tensor, settings: Any) -> Tensor:
    """The bucket of the time between each event and each one before it.

    Parameters
    ----------
    gaps : Tensor [B, L], float
        Normalised logarithms of 1 + the seconds since the event before; the first event's is not read.
    settings : HSTUSettings
        How they were normalised, and how many buckets there are.

    Returns
    -------
    Tensor [B, L, L], int64
        Entry i, j is that of the time from event j to event i; 0 where j is later.
    """
    logarithm = gaps[:, 1:].double() * settings.time_deviation + settings.time_mean
    seconds = torch.cat([torch.zeros_like(gaps[:, :1]).double(), logarithm.clamp(0, _LONGEST).expm1()], 1)
    clock = seconds.cumsum(1)
    between = (clock[:, :, None] - clock[:, None, :]).clamp(min=1)
    return (between.log() / _STEP).long().clamp(max=settings.time_buckets - 1)


class HSTULayer(nn.Module):
    """Attention without softmax, gated."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        width = settings.hidden_size
        self.heads, self.length = settings.num_attention_heads, settings.max_position_embeddings
        self.uvqk = nn.Linear(width, 4 * width, bias=False)
        self.output = nn.Linear(width, width)
        self.act = ACT2FN[settings.hidden_act]
        # The authors' norms learn nothing.
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, settings.layer_norm_eps, elementwise_affine=False) for _ in range(2)
        )
        self.distance = nn.Embedding(self.length, self.heads)
        self.time = nn.Embedding(settings.time_buckets, self.heads) if settings.time_feature else None
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, values: Tensor, distances: Tensor, later: Tensor, times: Tensor | None) -> tuple[Tensor, Tensor]:
        """Vectors [B, L, D], distances and what comes later [L, L], `buckets` -> vectors and weights [B, H, L, L]."""
        batch, length, width = values.shape
        before, after = self.norms
        mixed = self.act(self.uvqk(before(values)))
        gate, *parts = mixed.view(batch, length, 4, width).unbind(2)
        value, query, key = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts)
        scores = query @ key.transpose(-1, -2) + self.distance(distances).permute(2, 0, 1)
        if self.time is not None and times is not None:
            scores = scores + self.time(times).permute(0, 3, 1, 2)
        weights = (self.act(scores) / self.length).masked_fill(later, 0)
        attended = (weights @ value).transpose(1, 2).reshape(batch, length, width)
        return values + self.output(self.dropout(after(attended) * gate)), weights


class HSTU(nn.Module):
    """HSTU over vectors.

    Parameters
    ----------
    config : HSTUSettings
        Sizes and choices.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(HSTULayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        first_weights(self, config.initializer_range)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        return_dict: bool = False,
        gaps: Tensor | None = None,
        **_: Any,
    ) -> tuple[Any, ...]:
        """Vectors [B, L, D], and gaps [B, L] as in `buckets`, to vectors, and weights if wanted (they add to no 1).

        The mask is not read: padding on the right is later than every event. L is ``max_position_embeddings`` at most.

        Raises
        ------
        ValueError
            When the settings name a column of times, and there are no gaps.
        """
        times = None
        if self.config.time_feature:
            if gaps is None:
                raise ValueError(f"hstu needs the times of the feature {self.config.time_feature!r}")
            times = buckets(gaps, self.config)
        place = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)
        ago = place[:, None] - place
        values = self.dropout(inputs_embeds)
        attentions = []
        for layer in self.layers:
            values, weights = layer(values, ago.clamp(min=0), ago < 0, times)
            attentions.append(weights)
        values = self.norm(values)
        return (values, tuple(attentions)) if self.config.output_attentions else (values,)
