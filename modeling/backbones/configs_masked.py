"""Configurations of the backbones that look both ways."""

from __future__ import annotations

from typing import Any

import transformers

from modeling.backbones.configs import Sizes, T4RecConfig, check_rotary, must_be_even


class _BertLike(T4RecConfig):
    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return sizes.bert


class BertConfig(_BertLike, transformers.BertConfig):
    """BERT: absolute positions (Devlin et al., NAACL 2019)."""


class RobertaConfig(_BertLike, transformers.RobertaConfig):
    """RoBERTa: BERT's layers, positions counted from behind the padding id (Liu et al., 2019)."""


class MegatronBertConfig(_BertLike, transformers.MegatronBertConfig):
    """Megatron's BERT: the layer norms come first (Shoeybi et al., 2019)."""


class _Embedded(T4RecConfig):
    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`. The inputs have the backbone's width already."""
        return {**sizes.bert, "embedding_size": sizes.width}


class ElectraConfig(_Embedded, transformers.ElectraConfig):
    """ELECTRA's encoder (Clark et al., ICLR 2020)."""


class AlbertConfig(_Embedded, transformers.AlbertConfig):
    """ALBERT: layers that share their weights (Lan et al., ICLR 2020)."""


class ConvBertConfig(_Embedded, transformers.ConvBertConfig):
    """ConvBERT: half of the heads are convolutions made from the span around them (Jiang et al., NeurIPS 2020)."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        must_be_even(sizes.width // max(1, sizes.heads // 2), "the width of a pair of heads", "one half convolves")
        return super().settings(sizes)


class DistilBertConfig(T4RecConfig, transformers.DistilBertConfig):
    """DistilBERT: BERT's layers without segments (Sanh et al., 2019). Its layer norms keep their epsilon of 1e-12."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return {
            "dim": sizes.width,
            "hidden_dim": 4 * sizes.width,
            "n_layers": sizes.layers,
            "n_heads": sizes.heads,
            "activation": sizes.act,
            "initializer_range": sizes.init,
            "dropout": sizes.dropout,
            "attention_dropout": sizes.dropout,
            "max_position_embeddings": sizes.positions,
            **sizes.tokens,
        }


class _Disentangled(T4RecConfig):
    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`. Hugging Face leaves out by default what DeBERTa is about."""
        return {
            **sizes.bert,
            "type_vocab_size": 0,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "max_relative_positions": sizes.positions,
        }


class DebertaConfig(_Disentangled, transformers.DebertaConfig):
    """DeBERTa: content and relative position attend separately (He et al., ICLR 2021)."""


class DebertaV2Config(_Disentangled, transformers.DebertaV2Config):
    """DeBERTa's second version: one projection for contents and positions (He et al., ICLR 2023)."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return {**super().settings(sizes), "share_att_key": True, "norm_rel_ebd": "layer_norm"}


class MPNetConfig(T4RecConfig, transformers.MPNetConfig):
    """MPNet: absolute positions and relative ones in buckets (Song et al., NeurIPS 2020)."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`. Its table of words has its padding in row 1, whatever the configuration says."""
        settings = {name: value for name, value in sizes.bert.items() if name != "type_vocab_size"}
        return {**settings, "vocab_size": max(2, sizes.pad + 1)}


class ModernBertConfig(T4RecConfig, transformers.ModernBertConfig):
    """ModernBERT: rotary positions, gated inner layers, windows of 128 in two of three layers (Warner et al., 2024)."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        check_rotary(sizes)
        return {
            "hidden_size": sizes.width,
            "intermediate_size": 4 * sizes.width,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "hidden_activation": sizes.act,
            "initializer_range": sizes.init,
            "norm_eps": sizes.eps,
            "embedding_dropout": sizes.dropout,
            "attention_dropout": sizes.dropout,
            "mlp_dropout": sizes.dropout,
            "max_position_embeddings": sizes.positions,
            "cls_token_id": None,
            "sep_token_id": None,
            **sizes.tokens,
        }


class FunnelConfig(T4RecConfig, transformers.FunnelConfig):
    """Funnel: each block pools the positions of the one before by two (Dai et al., NeurIPS 2020); see `funnel`.

    `n_layer` layers go into up to three blocks; two more decode at full length (``num_decoder_layers``). The size of
    the first weights follows from the sides of each matrix unless ``initializer_std`` is given; `initializer_range` is
    for what belongs to positions.
    """

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`. No event is the <cls> that language models keep out of the pooling."""
        must_be_even(sizes.width, "d_model", "half of each distance's encoding are sines, half cosines")
        blocks = min(3, sizes.layers)
        return {
            "d_model": sizes.width,
            "d_inner": 4 * sizes.width,
            "n_head": sizes.heads,
            "d_head": sizes.width // sizes.heads,
            "block_sizes": [sizes.layers // blocks + (i < sizes.layers % blocks) for i in range(blocks)],
            "hidden_act": sizes.act,
            "initializer_range": sizes.init,
            "layer_norm_eps": sizes.eps,
            "hidden_dropout": sizes.dropout,
            "attention_dropout": sizes.dropout,
            "activation_dropout": sizes.dropout,
            "max_position_embeddings": sizes.length,
            "separate_cls": False,
            "truncate_seq": False,
            **sizes.tokens,
        }
