"""SASRec, the transformer that recommenders are measured by (Kang and McAuley, ICDM 2018: https://arxiv.org/abs/1808.09781).

As it is trained today: layer norms come before attention and inner layer and once more at the end (Xiong et al., ICML
2020), queries, keys and values are made from the same normalised vectors, the inner layer is four times as wide, and
the first event of a session has the first position. Inside the inner layer nothing is dropped out, only what comes
out of it: drawing the random numbers took a sixth of a training step. With P the learnt positions, a layer is::

    x = x + attention(norm(x))        x = x + inner(norm(x))        beginning with x = event + P

gSASRec (Petrov and Macdonald, RecSys 2023: https://arxiv.org/abs/2308.07192) is this network under another loss:
``architecture: sasrec`` with ``loss: gbce``. Its plain form, with the whole catalogue in the loss, is cross-entropy.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.activations import ACT2FN

from modeling.backbones.dropout import attend


class SASRecSettings(transformers.PreTrainedConfig):
    """Settings of `SASRec`.

    Parameters
    ----------
    hidden_size, intermediate_size : int
        Width of the vectors and of the inner layer.
    num_attention_heads, num_hidden_layers : int
        Heads, which divide the width; layers.
    max_position_embeddings : int
        The longest session in events.
    hidden_act : str
        Activation of the inner layer.
    dropout : float
        Of what comes in, of attention weights, and of what attention and inner layers add.
    layer_norm_eps, initializer_range : float
        Epsilon of the layer norms; standard deviation of the first weights.
    """

    model_type = "sasrec"

    hidden_size: int = 64
    intermediate_size: int = 256
    num_attention_heads: int = 4
    num_hidden_layers: int = 2
    max_position_embeddings: int = 50
    hidden_act: str = "gelu"
    dropout: float | int = 0.2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02


def first_weights(network: nn.Module, deviation: float) -> None:
    """Matrices from a normal distribution, biases zero; norms keep torch's ones."""
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=deviation)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


class CausalAttention(nn.Module):
    """Attention to the position itself and those before it.

    Padding stands behind the events, so no event sees it, and there is no mask to make: torch's fused function knows
    the triangle. The weights are computed openly where they are wanted (``output_attentions``).
    """

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.heads = settings.num_attention_heads
        self.width = settings.hidden_size // self.heads
        # A bias of the keys would add the same to all scores of a query.
        self.qkv = nn.Linear(settings.hidden_size, 3 * settings.hidden_size, bias=False)
        self.output = nn.Linear(settings.hidden_size, settings.hidden_size)
        self.dropout = nn.Dropout(settings.dropout)
        self.open = bool(settings.output_attentions)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Vectors [B, L, D] to vectors, and to weights [B, H, L, L] where they are wanted."""
        batch, length, width = values.shape
        query, key, value = self.qkv(values).view(batch, length, 3, self.heads, self.width).transpose(1, 3).unbind(2)
        weights = None
        if self.open:
            scores = query @ key.transpose(-1, -2) * self.width**-0.5
            place = torch.arange(length, device=values.device)
            scores = scores.masked_fill(place[:, None] < place, torch.finfo(scores.dtype).min)
            weights = self.dropout(scores.softmax(-1))
            attended = weights @ value
        else:
            rate = self.dropout.p if self.training else 0.0
            attended = attend(query, key, value, rate, causal=True)
        return self.output(attended.transpose(1, 2).reshape(batch, length, width)), weights


class SASRecLayer(nn.Module):
    """Attention and an inner layer, each added to what comes in."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.attention = CausalAttention(settings)
        self.inner = nn.Sequential(
            nn.Linear(settings.hidden_size, settings.intermediate_size),
            ACT2FN[settings.hidden_act],
            nn.Linear(settings.intermediate_size, settings.hidden_size),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(settings.hidden_size, settings.layer_norm_eps) for _ in range(2))
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `CausalAttention.forward`."""
        first, second = self.norms
        attended, weights = self.attention(first(values))
        values = values + self.dropout(attended)
        return values + self.dropout(self.inner(second(values))), weights


class SASRec(nn.Module):
    """SASRec over vectors.

    Parameters
    ----------
    config : SASRecSettings
        Sizes and choices.
    layer : type
        Class of the layers.
    """

    def __init__(self, config: Any, layer: type[nn.Module] = SASRecLayer) -> None:
        super().__init__()
        self.config = config
        self.positions = nn.Parameter(torch.empty(config.max_position_embeddings, config.hidden_size))
        self.layers = nn.ModuleList(layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        first_weights(self, config.initializer_range)

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, return_dict: bool = False, **_: Any
    ) -> tuple[Any, ...]:
        """Vectors [B, L, D] to vectors, and attention weights if wanted.

        The mask is not read: padding on the right is later than every event. L is ``max_position_embeddings`` at most.
        """
        values = self.dropout(inputs_embeds + self.positions[: inputs_embeds.shape[1]])
        attentions = []
        for layer in self.layers:
            values, weights = layer(values)
            attentions.append(weights)
        values = self.norm(values)
        return (values, tuple(attentions)) if self.config.output_attentions else (values,)
