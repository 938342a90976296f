"""Configurations of the backbones that look both ways, or back only, as the objective needs."""

from __future__ import annotations

from typing import Any

import transformers

from modeling.backbones.configs import Sizes, T4RecConfig, check_rotary, must_be_even


class XLNetConfig(T4RecConfig, transformers.XLNetConfig):
    """XLNet: relative positions; every objective, permutations among them (Yang et al., NeurIPS 2019)."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        must_be_even(sizes.width, "d_model", "half of each distance's encoding are sines, half cosines")
        return {
            "d_model": sizes.width,
            "d_inner": 4 * sizes.width,
            "n_layer": sizes.layers,
            "n_head": sizes.heads,
            "attn_type": "bi",
            "ff_activation": sizes.act,
            "initializer_range": sizes.init,
            "layer_norm_eps": sizes.eps,
            "dropout": sizes.dropout,
            "mem_len": None,
            "use_mems_eval": False,
            "use_mems_train": False,
            **sizes.tokens,
        }

    @classmethod
    def build(  # type: ignore[override]
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
        log_attention_weights: bool = False,
        mem_len: int | None = None,
        **arguments: Any,
    ) -> XLNetConfig:
        """See `T4RecConfig.build`.

        Raises
        ------
        ValueError
            For `attn_type` "uni": causality follows the objective; and for a memory of earlier batches: sessions of
            other visitors are not the past of this one.
        """
        if attn_type != "bi":
            raise ValueError("XLNet's own attn_type='uni' fails on batches: leave it 'bi' and give masking='clm'")
        if mem_len not in (None, 0, 1):  # 1 is what programs written for Transformers4Rec give
            raise ValueError(f"mem_len={mem_len}: a session has no memory of the batch before it; leave it None")
        return super().build(
            d_model, n_head, n_layer, total_seq_length or 1, hidden_act, initializer_range, layer_norm_eps, dropout,
            pad_token, log_attention_weights, **arguments,
        )  # fmt: skip


class LongformerConfig(T4RecConfig, transformers.LongformerConfig):
    """Longformer: attention within a window (Beltagy et al., 2020); see `longformer`.

    The window covers the whole session unless ``attention_window`` (even, both sides together) says otherwise.
    """

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return {**sizes.bert, "attention_window": 2 * sizes.length, "sep_token_id": 0}


class RoFormerConfig(T4RecConfig, transformers.RoFormerConfig):
    """RoFormer: BERT's layers with rotary positions (Su et al., 2021)."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        check_rotary(sizes)
        return {**sizes.bert, "embedding_size": sizes.width, "use_cache": False}


class ReformerConfig(T4RecConfig, transformers.ReformerConfig):
    """Reformer: residual streams that can be run backwards, attention in chunks (Kitaev et al., ICLR 2020).

    One chunk covers the whole session unless ``local_attn_chunk_length`` is given; see `reformer`.
    """

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return {
            "hidden_size": sizes.width,
            "feed_forward_size": 4 * sizes.width,
            "num_hidden_layers": sizes.layers,
            "attn_layers": ["local"] * sizes.layers,
            "num_attention_heads": sizes.heads,
            "attention_head_size": sizes.width // sizes.heads,
            "local_attn_chunk_length": sizes.length,
            "hidden_act": sizes.act,
            "initializer_range": sizes.init,
            "layer_norm_eps": sizes.eps,
            "hidden_dropout_prob": sizes.dropout,
            "local_attention_probs_dropout_prob": sizes.dropout,
            "lsh_attention_probs_dropout_prob": sizes.dropout,
            "axial_pos_embds": False,
            "max_position_embeddings": sizes.length,
            "use_cache": False,
            **sizes.tokens,
        }

    @classmethod
    def build(  # type: ignore[override]
        cls,
        d_model: int,
        n_head: int,
        n_layer: int,
        total_seq_length: int,
        axial_pos_shape_first_dim: int = 4,
        **arguments: Any,
    ) -> ReformerConfig:
        """See `T4RecConfig.build`.

        `axial_pos_shape_first_dim` is taken, and has no effect: tables of positions in two axes save memory on tens of
        thousands of positions, and only fit lengths that are multiples of it.
        """
        return super().build(d_model, n_head, n_layer, total_seq_length, **arguments)
