"""Configurations of the backbones that never look ahead."""

from __future__ import annotations

from typing import Any

import transformers

from modeling.backbones.configs import GatedConfig, Sizes, T4RecConfig, check_rotary
from modeling.backbones.transfo_xl import TransfoXLSettings


class GPT2Config(T4RecConfig, transformers.GPT2Config):
    """GPT-2: absolute positions (Radford et al., 2019)."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return {
            "n_embd": sizes.width,
            "n_inner": 4 * sizes.width,
            "n_layer": sizes.layers,
            "n_head": sizes.heads,
            "activation_function": sizes.act,
            "initializer_range": sizes.init,
            "layer_norm_epsilon": sizes.eps,
            "resid_pdrop": sizes.dropout,
            "embd_pdrop": sizes.dropout,
            "attn_pdrop": sizes.dropout,
            "n_positions": sizes.positions,
            "use_cache": False,
            **sizes.tokens,
        }


class TransfoXLConfig(T4RecConfig, TransfoXLSettings):
    """Transformer-XL: relative positions (Dai et al., ACL 2019). Written here; see `transfo_xl`."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return {
            "d_model": sizes.width,
            "d_head": sizes.width // sizes.heads,
            "d_inner": 4 * sizes.width,
            "n_layer": sizes.layers,
            "n_head": sizes.heads,
            "hidden_act": sizes.act,
            "initializer_range": sizes.init,
            "layer_norm_epsilon": sizes.eps,
            "dropout": sizes.dropout,
            "dropatt": sizes.dropout,
        }


def _llama(sizes: Sizes) -> dict[str, Any]:
    check_rotary(sizes)
    return {
        "hidden_size": sizes.width,
        "intermediate_size": 4 * sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.heads,
        "head_dim": sizes.width // sizes.heads,
        "hidden_act": sizes.act,
        "initializer_range": sizes.init,
        "rms_norm_eps": sizes.eps,
        "attention_dropout": sizes.dropout,
        "max_position_embeddings": sizes.positions,
        "use_cache": False,
        **sizes.tokens,
    }


class LlamaConfig(GatedConfig, transformers.LlamaConfig):
    """Llama: rotary positions, gated inner layers (Touvron et al., 2023). Its only dropout is the attention's."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return _llama(sizes)


class Qwen3Config(GatedConfig, transformers.Qwen3Config):
    """Qwen3: Llama with normalised queries and keys (Yang et al., 2025). Its only dropout is the attention's."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return _llama(sizes)


class Mamba2Config(GatedConfig, transformers.Mamba2Config):
    """Mamba-2: a recurrence instead of attention (Dao and Gu, ICML 2024); see `mamba2`.

    Its inner width is twice `d_model` (``expand``), its state holds `d_model` values a channel, 128 at most. It has no
    dropout of its own; `dropout` is applied to what each layer adds.
    """

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return {
            "hidden_size": sizes.width,
            "num_hidden_layers": sizes.layers,
            "num_heads": sizes.heads,
            "head_dim": 2 * sizes.width // sizes.heads,
            "expand": 2,
            "state_size": min(128, sizes.width),
            "n_groups": 1,
            "hidden_act": sizes.act,
            "initializer_range": sizes.init,
            "layer_norm_epsilon": sizes.eps,
            "dropout": sizes.dropout,
            # Hugging Face's infinity has no place in JSON; steps are softplus of what is learnt, and never near this.
            "time_step_limit": (0.0, 1e9),
            "residual_in_fp32": False,
            "use_cache": False,
            **sizes.tokens,
        }
