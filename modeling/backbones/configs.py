"""The backbones: their configurations in one voice, and which objective each supports.

Every ``build`` takes the same arguments and sets every dropout of the backbone, an inner width of four times
`d_model`, and position tables for the sessions only.
"""

from __future__ import annotations

from typing import Any, TypeVar

import transformers
from torch import nn

C = TypeVar("C", bound="T4RecConfig")

# Objectives by architecture. Causal objectives need a backbone that cannot look ahead; masked ones need
# a backbone that can. XLNet does either: its mask of permutations, made triangular, is causal.
SUPPORTED: dict[str, tuple[str, ...]] = {
    "gpt2": ("clm",),
    "xlnet": ("mlm", "clm"),
    "bert": ("mlm",),
    "roberta": ("mlm",),
    "electra": ("mlm",),
    "albert": ("mlm",),
}


def check_pair(model_type: str, masking: str) -> None:
    """Refuse an objective that a backbone cannot honour.

    Raises
    ------
    ValueError
        Naming both, and what is supported.
    """
    if model_type not in SUPPORTED:
        known = ", ".join(SUPPORTED)
        raise ValueError(f"backbones of type {model_type!r} are not supported: use one of {known}")
    if masking not in SUPPORTED[model_type]:
        why = "sees the items that it would have to predict" if masking == "clm" else "cannot look ahead"
        supported = ", ".join(SUPPORTED[model_type])
        raise ValueError(f"{model_type} does not support masking {masking!r} (it {why}): use {supported}")


class T4RecConfig:
    """What the configurations have beyond Hugging Face's: models of this library from them."""

    @classmethod
    def build(cls: type[C], d_model: int, n_head: int, n_layer: int, total_seq_length: int, **arguments: Any) -> C:
        """A configuration from the arguments that all backbones share."""
        raise NotImplementedError

    def to_huggingface_torch_model(self) -> nn.Module:
        """The bare backbone."""
        from modeling.backbones.block import backbone

        return backbone(self)

    def to_torch_model(self, input_features: Any, *prediction_task: Any, **arguments: Any) -> Any:
        """A whole model: inputs, a projection where widths differ, this backbone, and a head.

        Parameters
        ----------
        input_features : TabularSequenceFeatures
            With its objective (``masking=``).
        *prediction_task : NextItemPredictionTask
            What to predict.
        **arguments
            Go to `Head`.
        """
        from modeling.backbones.block import TransformerBlock
        from modeling.blocks.mlp import MLPBlock
        from modeling.blocks.sequential import SequentialBlock
        from modeling.model import Model
        from modeling.tasks.head import Head

        width = self.hidden_size  # type: ignore[attr-defined]
        between = [] if input_features.output_dim == width else [MLPBlock([width])]
        transformer = TransformerBlock(self, masking=input_features.masking)
        body = SequentialBlock(input_features, *between, transformer)
        return Model(Head(body, list(prediction_task), inputs=input_features, **arguments))


class GPT2Config(T4RecConfig, transformers.GPT2Config):
    """GPT-2: causal, absolute positions (Radford et al., 2019)."""

    @classmethod
    def build(
        cls,
        d_model: int,
        n_head: int,
        n_layer: int,
        total_seq_length: int,
        hidden_act: str = "gelu",
        initializer_range: float = 0.01,
        layer_norm_eps: float = 1e-12,
        dropout: float = 0.3,
        pad_token: int = 0,
        **arguments: Any,
    ) -> GPT2Config:
        """See `T4RecConfig.build`."""
        return cls(
            n_embd=d_model,
            n_inner=4 * d_model,
            n_layer=n_layer,
            n_head=n_head,
            activation_function=hidden_act,
            initializer_range=initializer_range,
            layer_norm_epsilon=layer_norm_eps,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            n_positions=total_seq_length + 2,
            vocab_size=1,
            bos_token_id=None,
            eos_token_id=None,
            **arguments,
        )


class XLNetConfig(T4RecConfig, transformers.XLNetConfig):
    """XLNet: relative positions; both objectives (Yang et al., NeurIPS 2019)."""

    @classmethod
    def build(
        cls,
        d_model: int,
        n_head: int,
        n_layer: int,
        total_seq_length: int | None = None,
        attn_type: str = "bi",
        hidden_act: str = "gelu",
        initializer_range: float = 0.01,
        layer_norm_eps: float = 1e-12,
        dropout: float = 0.3,
        pad_token: int = 0,
        **arguments: Any,
    ) -> XLNetConfig:
        """See `T4RecConfig.build`. Causality follows the objective: `attn_type` "uni" is refused."""
        if attn_type != "bi":
            raise ValueError("XLNet's own attn_type='uni' fails on batches: leave it 'bi' and give masking='clm'")
        return cls(
            d_model=d_model,
            d_inner=4 * d_model,
            n_layer=n_layer,
            n_head=n_head,
            attn_type=attn_type,
            ff_activation=hidden_act,
            initializer_range=initializer_range,
            layer_norm_eps=layer_norm_eps,
            dropout=dropout,
            mem_len=None,
            use_mems_eval=False,
            use_mems_train=False,
            vocab_size=1,
            pad_token_id=pad_token,
            bos_token_id=None,
            eos_token_id=None,
            **arguments,
        )


def _bidirectional(
    d_model: int,
    n_head: int,
    n_layer: int,
    total_seq_length: int,
    hidden_act: str = "gelu",
    initializer_range: float = 0.01,
    layer_norm_eps: float = 1e-12,
    dropout: float = 0.3,
    pad_token: int = 0,
    **arguments: Any,
) -> dict[str, Any]:
    return {
        "hidden_size": d_model,
        "intermediate_size": 4 * d_model,
        "num_hidden_layers": n_layer,
        "num_attention_heads": n_head,
        "hidden_act": hidden_act,
        "initializer_range": initializer_range,
        "layer_norm_eps": layer_norm_eps,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "max_position_embeddings": total_seq_length + 2,
        "vocab_size": 1,
        "pad_token_id": pad_token,
        "bos_token_id": None,
        "eos_token_id": None,
        **arguments,
    }


class BertConfig(T4RecConfig, transformers.BertConfig):
    """BERT: bidirectional, absolute positions (Devlin et al., 2019)."""

    @classmethod
    def build(cls, d_model: int, n_head: int, n_layer: int, total_seq_length: int, **arguments: Any) -> BertConfig:
        """See `T4RecConfig.build`."""
        return cls(**_bidirectional(d_model, n_head, n_layer, total_seq_length, **arguments))


class RobertaConfig(T4RecConfig, transformers.RobertaConfig):
    """RoBERTa: BERT's layers, positions counted from behind the padding index (Liu et al., 2019)."""

    @classmethod
    def build(cls, d_model: int, n_head: int, n_layer: int, total_seq_length: int, **arguments: Any) -> RobertaConfig:
        """See `T4RecConfig.build`."""
        return cls(**_bidirectional(d_model, n_head, n_layer, total_seq_length, **arguments))


class ElectraConfig(T4RecConfig, transformers.ElectraConfig):
    """ELECTRA's encoder (Clark et al., 2020)."""

    @classmethod
    def build(cls, d_model: int, n_head: int, n_layer: int, total_seq_length: int, **arguments: Any) -> ElectraConfig:
        """See `T4RecConfig.build`."""
        common = _bidirectional(d_model, n_head, n_layer, total_seq_length, **arguments)
        return cls(**{"embedding_size": d_model, **common})


class AlbertConfig(T4RecConfig, transformers.AlbertConfig):
    """ALBERT: layers that share their weights (Lan et al., 2020)."""

    @classmethod
    def build(cls, d_model: int, n_head: int, n_layer: int, total_seq_length: int, **arguments: Any) -> AlbertConfig:
        """See `T4RecConfig.build`."""
        common = _bidirectional(d_model, n_head, n_layer, total_seq_length, **arguments)
        return cls(**{"embedding_size": d_model, **common})


transformer_registry: dict[str, type[T4RecConfig]] = {
    "gpt2": GPT2Config,
    "xlnet": XLNetConfig,
    "bert": BertConfig,
    "roberta": RobertaConfig,
    "electra": ElectraConfig,
    "albert": AlbertConfig,
}
