"""Transformer-XL, which left transformers with its version 5 (Dai et al., ACL 2019: https://arxiv.org/abs/1901.02860).

The score of query i and key j, from the paper's section 3.3, is::

    (q_i + u) . k_j + (q_i + v) . W_r R_{i-j}

with R the sinusoids of the distance and u, v learnt: how much a key, and how much a distance, matters whatever the
query is. The memory of segments before is left out: a session is one segment, and the one before it in a batch belongs
to somebody else.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN


class TransfoXLSettings(transformers.PreTrainedConfig):
    """Settings of `TransfoXL`.

    Parameters
    ----------
    d_model, d_head, d_inner, n_head, n_layer : int
        Width of the vectors, of a head and of the inner layer; heads; layers.
    hidden_act : str
        Activation of the inner layer.
    dropout, dropatt : float
        Of everything but the attention weights, and of those.
    untie_r : bool
        Each layer has its own u and v.
    pre_lnorm : bool
        Layer norms come before attention and inner layer, instead of after the sums.
    layer_norm_epsilon, initializer_range : float
        Epsilon of the layer norms; standard deviation of the first weights.
    """

    model_type = "transfo-xl"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    d_model: int = 256
    d_head: int = 64
    d_inner: int = 1024
    n_head: int = 4
    n_layer: int = 4
    hidden_act: str = "relu"
    dropout: float | int = 0.1
    dropatt: float | int = 0.0
    untie_r: bool = True
    pre_lnorm: bool = False
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02


def sinusoids(length: int, width: int, like: Tensor) -> Tensor:
    """Encodings [length, width] of the distances length-1 ... 0, with the type and device of `like`."""
    distance = torch.arange(length, device=like.device).flip(0).to(like.dtype)
    exponent = torch.arange(0, width, 2, device=like.device).to(like.dtype) / width
    angle = distance[:, None] * 10000.0 ** (-exponent)
    return torch.cat([angle.sin(), angle.cos()], 1)[:, :width]


def by_distance(scores: Tensor) -> Tensor:
    """Scores [B, H, L, L] by distance (L-1 first, 0 last) to scores by key: entry i, j of the result has distance i-j.

    Each row moves left by one more place than the row below. A column in front, and another reading of the same
    memory, do that without a loop. Entries with j > i are meaningless.
    """
    batch, heads, rows, columns = scores.shape
    shifted = F.pad(scores, (1, 0)).reshape(batch, heads, columns + 1, rows)
    return shifted[:, :, 1:].reshape(batch, heads, rows, columns)


def two_biases(settings: Any) -> nn.ParameterList:
    """The paper's u and v."""
    return nn.ParameterList(torch.zeros(settings.n_head, settings.d_head) for _ in range(2))


class RelativeAttention(nn.Module):
    """Causal attention by content and distance; with u and v of its own, or given ones (``untie_r=False``)."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        inner = settings.n_head * settings.d_head
        self.heads, self.width = settings.n_head, settings.d_head
        self.qkv = nn.Linear(settings.d_model, 3 * inner, bias=False)
        self.distance = nn.Linear(settings.d_model, inner, bias=False)
        self.output = nn.Linear(inner, settings.d_model, bias=False)
        self.dropout = nn.Dropout(settings.dropatt)
        self.biases = two_biases(settings) if settings.untie_r else None

    def forward(
        self, values: Tensor, distances: Tensor, hidden: Tensor, biases: nn.ParameterList | None
    ) -> tuple[Tensor, Tensor]:
        """Vectors [B, L, d_model], sinusoids [L, d_model], what not to look at [B, 1, L, L] -> vectors and weights."""
        own: Any = self.biases
        u, v = own if biases is None else biases
        batch, length, _ = values.shape
        query, key, value = self.qkv(values).view(batch, length, 3, self.heads, self.width).unbind(2)
        relative = self.distance(distances).view(length, self.heads, self.width)
        content = torch.einsum("bihd,bjhd->bhij", query + u, key)
        position = by_distance(torch.einsum("bihd,jhd->bhij", query + v, relative))
        scores = (content + position) * self.width**-0.5
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(-1))
        attended = torch.einsum("bhij,bjhd->bihd", weights, value).reshape(batch, length, self.heads * self.width)
        return self.output(attended), weights


class TransfoXLLayer(nn.Module):
    """Attention and an inner layer, each with a way around it."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.attention = RelativeAttention(settings)
        self.inner = nn.Sequential(
            nn.Linear(settings.d_model, settings.d_inner),
            ACT2FN[settings.hidden_act],
            nn.Dropout(settings.dropout),
            nn.Linear(settings.d_inner, settings.d_model),
            nn.Dropout(settings.dropout),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(settings.d_model, settings.layer_norm_epsilon) for _ in range(2))
        self.dropout = nn.Dropout(settings.dropout)
        self.pre = settings.pre_lnorm

    def forward(
        self, values: Tensor, distances: Tensor, hidden: Tensor, biases: nn.ParameterList | None
    ) -> tuple[Tensor, Tensor]:
        """As `RelativeAttention.forward`."""
        first, second = self.norms
        attended, weights = self.attention(first(values) if self.pre else values, distances, hidden, biases)
        values = values + self.dropout(attended)
        if self.pre:
            return values + self.inner(second(values)), weights
        values = first(values)
        return second(values + self.inner(values)), weights


class TransfoXL(nn.Module):
    """Transformer-XL over vectors, without its memory.

    Parameters
    ----------
    config : TransfoXLSettings
        Sizes and choices.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.biases = None if config.untie_r else two_biases(config)
        self.layers = nn.ModuleList(TransfoXLLayer(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.d_model, config.layer_norm_epsilon) if config.pre_lnorm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:  # weights, u and v; biases and norms keep torch's
                nn.init.normal_(parameter, std=config.initializer_range)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, return_dict: bool = False, **_: Any
    ) -> tuple[Any, ...]:
        """Vectors [B, L, d_model] and where they are real [B, L] to vectors, and attention weights if wanted."""
        length = inputs_embeds.shape[1]
        place = torch.arange(length, device=inputs_embeds.device)
        hidden = (place[:, None] < place)[None, None]
        if attention_mask is not None:
            hidden = hidden | (attention_mask == 0)[:, None, None]
        values = self.dropout(inputs_embeds)
        distances = self.dropout(sinusoids(length, self.config.d_model, inputs_embeds))
        attentions = []
        for layer in self.layers:
            values, weights = layer(values, distances, hidden, self.biases)
            attentions.append(weights)
        values = self.dropout(self.norm(values))
        return (values, tuple(attentions)) if self.config.output_attentions else (values,)
