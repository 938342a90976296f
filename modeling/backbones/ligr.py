"""eSASRec: SASRec with the layers of LiGR (Tikhonovich et al., RecSys 2025: https://arxiv.org/abs/2508.06450).

LiGR (Borisyuk et al., 2025: https://arxiv.org/abs/2502.03417) lets each vector decide how much it takes of what
attention and inner layer offer::

    x = x + attention(norm(x)) * sigmoid(W_1 x + b_1)        x = x + inner(norm(x)) * sigmoid(W_2 x + b_2)

with the inner layer of SwiGLU (Shazeer, 2020: https://arxiv.org/abs/2002.05202), ``W_down(silu(W_gate x) * W_up x)``.
The norm behind the last layer is SASRec's; published code for eSASRec has none there.
eSASRec trains them with a softmax over sampled items: ``architecture: esasrec`` with ``loss: sampled-softmax``; with
a catalogue that is not large, cross-entropy is the same over all items.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.activations import ACT2FN

from modeling.backbones.sasrec import CausalAttention, SASRec, SASRecSettings


class LiGRSettings(SASRecSettings):
    """Settings of `LiGRLayer` in a `SASRec`: the same, with the activation and the epsilon of gated layers."""

    model_type = "esasrec"

    hidden_act: str = "silu"
    layer_norm_eps: float = 1e-6


class GatedInner(nn.Module):
    """An inner layer whose values are multiplied with activations of the same vector."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.up = nn.Linear(settings.hidden_size, 2 * settings.intermediate_size, bias=False)
        self.down = nn.Linear(settings.intermediate_size, settings.hidden_size, bias=False)
        self.act = ACT2FN[settings.hidden_act]

    def forward(self, values: Tensor) -> Tensor:
        """Vectors [..., D] to vectors."""
        gate, up = self.up(values).chunk(2, -1)
        found: Tensor = self.down(self.act(gate) * up)
        return found


class LiGRLayer(nn.Module):
    """Attention and an inner layer, each added by as much as a gate lets through."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        width = settings.hidden_size
        self.attention = CausalAttention(settings)
        self.inner = GatedInner(settings)
        self.norms = nn.ModuleList(nn.LayerNorm(width, settings.layer_norm_eps) for _ in range(2))
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `CausalAttention.forward`."""
        (first, second), (gate, later) = self.norms, self.gates
        attended, weights = self.attention(first(values))
        values = values + gate(values).sigmoid() * self.dropout(attended)
        return values + later(values).sigmoid() * self.dropout(self.inner(second(values))), weights


def esasrec(config: Any, causal: bool) -> SASRec:
    """SASRec with LiGR's layers."""
    return SASRec(config, LiGRLayer)
