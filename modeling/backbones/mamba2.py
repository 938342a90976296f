"""Mamba-2 in the form that suits sessions (Dao and Gu, ICML 2024: https://arxiv.org/abs/2405.21060).

The paper shows that its recurrence, h_t = a_t h_{t-1} + dt_t B_t x_t and y_t = C_t h_t, equals a masked attention
whose mask is the product of the a between two positions. Long texts are cut into chunks of that attention with the
recurrence between them; a session is one chunk. So nothing is padded, the result is exact at any length, and it traces.
Memory grows with the square of the length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer, Mamba2Model

from modeling.backbones.plain import make, with_weights_of


def recurrence(x: Tensor, step: Tensor, decay: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """All steps of the recurrence at once.

    Parameters
    ----------
    x : Tensor [B, L, H, P]
        Inputs of each head.
    step : Tensor [B, L, H]
        How much time each event takes (dt).
    decay : Tensor [H]
        Negative: what is left after a step is exp(step * decay).
    b, c : Tensor [B, L, H, N]
        What is written to the state, and read from it.

    Returns
    -------
    Tensor [B, L, H, P]
    """
    place = torch.arange(x.shape[1], device=x.device)
    later = place[:, None] < place
    passed = (step * decay).cumsum(1).transpose(1, 2)
    # Filled before the exponential: what it would make of the future is huge, and so would be its gradient.
    left = (passed[..., :, None] - passed[..., None, :]).masked_fill(later, float("-inf")).exp()
    seen = torch.einsum("bihn,bjhn->bhij", c, b) * left
    return torch.einsum("bhij,bjhp->bihp", seen, x * step[..., None])


class SessionMixer(Mamba2Mixer):
    """Hugging Face's layer with `recurrence`, and with dropout on what it adds."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.dropout = nn.Dropout(getattr(config, "dropout", 0.0))

    def forward(self, hidden_states: Tensor, real: Tensor, **_: Any) -> Tensor:
        """Vectors [B, L, D] and where they are real ([B, L, 1], 1 or 0) to vectors."""
        batch, length, _width = hidden_states.shape
        heads, groups, states = self.num_heads, self.n_groups, self.ssm_state_size
        gate, mixed, step = self.in_proj(hidden_states * real).split(
            [self.intermediate_size, self.conv_dim, heads], dim=-1
        )
        mixed = self.act(self.conv1d(mixed.transpose(1, 2))[..., :length].transpose(1, 2)) * real
        x, b, c = mixed.split([self.intermediate_size, groups * states, groups * states], dim=-1)
        x = x.reshape(batch, length, heads, self.head_dim)
        b, c = (t.reshape(batch, length, groups, states).repeat_interleave(heads // groups, 2) for t in (b, c))
        step = F.softplus(step + self.dt_bias).clamp(*self.time_step_limit)
        y = recurrence(x, step, -self.A_log.exp(), b, c) + x * self.D[:, None]
        gated = (y.reshape(batch, length, -1) * F.silu(gate)).view(batch, length, groups, -1)
        normed = F.rms_norm(gated, gated.shape[-1:], eps=self.norm.variance_epsilon)
        return self.dropout(self.out_proj(normed.reshape(batch, length, -1) * self.norm.weight))


class Mamba2(Mamba2Model):
    """Hugging Face's Mamba-2 around `SessionMixer`."""

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, return_dict: bool = False, **_: Any
    ) -> tuple[Tensor]:
        """Vectors [B, L, hidden_size] and where they are real [B, L] to vectors."""
        hidden = inputs_embeds
        if attention_mask is None:
            attention_mask = torch.ones_like(inputs_embeds[..., 0])
        real = attention_mask.to(hidden.dtype)[..., None]
        for block in self.layers:
            hidden = hidden + block.mixer(self._normed(hidden, block.norm), real)
        return (self._normed(hidden, self.norm_f),)

    def _normed(self, hidden: Tensor, norm: Any) -> Tensor:
        return F.rms_norm(hidden, (self.config.hidden_size,), norm.weight, norm.variance_epsilon)


def mamba2(config: Any, causal: bool) -> Mamba2:
    """Mamba-2 for sessions.

    Raises
    ------
    ValueError
        When attention weights are wanted.
    """
    if config.output_attentions:
        raise ValueError("mamba2 has no attention weights: leave log_attention_weights=False")
    network = make(Mamba2, config, causal)
    for number, block in enumerate(network.layers):
        new = SessionMixer(network.config, number)
        block.mixer = with_weights_of(new, block.mixer)
    return network
