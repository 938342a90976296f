"""Configurations of the backbones that were made for recommendations. They never look ahead."""

from __future__ import annotations

from typing import Any

from modeling.backbones.configs import GatedConfig, Sizes, T4RecConfig
from modeling.backbones.hstu import HSTUSettings
from modeling.backbones.ligr import LiGRSettings
from modeling.backbones.sasrec import SASRecSettings


def _sasrec(sizes: Sizes) -> dict[str, Any]:
    return {**_common(sizes), "intermediate_size": 4 * sizes.width}


def _common(sizes: Sizes) -> dict[str, Any]:
    return {
        "hidden_size": sizes.width,
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "max_position_embeddings": sizes.length,
        "hidden_act": sizes.act,
        "dropout": sizes.dropout,
        "layer_norm_eps": sizes.eps,
        "initializer_range": sizes.init,
    }


class SASRecConfig(T4RecConfig, SASRecSettings):
    """SASRec: absolute positions (Kang and McAuley, ICDM 2018). With the loss "gbce" it is gSASRec; see `sasrec`."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return _sasrec(sizes)


class ESASRecConfig(GatedConfig, LiGRSettings):
    """eSASRec: SASRec with LiGR's gated layers (Tikhonovich et al., RecSys 2025); see `ligr`."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return _sasrec(sizes)


class HSTUConfig(GatedConfig, HSTUSettings):
    """HSTU: relative positions, relative times with ``time_feature`` (Zhai et al., ICML 2024); see `hstu`."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """See `T4RecConfig.settings`."""
        return _common(sizes)
