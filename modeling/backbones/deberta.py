"""DeBERTa whose attention keeps its precision where the rest of a training step is in half of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.deberta.modeling_deberta import DebertaModel, DisentangledSelfAttention

from modeling.backbones.plain import make, with_weights_of


class SteadyAttention(DisentangledSelfAttention):
    """Hugging Face's attention outside of autocast.

    Within, its queries are single and its scores half precision, and it fills the scores with a number that only single
    precision has.
    """

    def forward(self, hidden_states: Tensor, *arguments: Any, rel_embeddings: Any = None, **options: Any) -> Any:
        """As `DisentangledSelfAttention.forward`."""
        kind = self.q_bias.dtype
        if rel_embeddings is not None:
            rel_embeddings = rel_embeddings.to(kind)
        with torch.autocast(hidden_states.device.type, enabled=False):
            return super().forward(hidden_states.to(kind), *arguments, rel_embeddings=rel_embeddings, **options)


def deberta(config: Any, causal: bool) -> DebertaModel:
    """DeBERTa for sessions."""
    network = make(DebertaModel, config, causal)
    for layer in network.encoder.layer:
        layer.attention.self = with_weights_of(SteadyAttention(network.config), layer.attention.self)
    return network
