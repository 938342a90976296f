"""The registered architectures: their names, their configurations and the networks made from them.

`modeling.backbones.objectives` says what each can be trained for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import transformers
from torch import nn

from modeling.backbones import configs_both as both
from modeling.backbones import configs_causal as back
from modeling.backbones import configs_masked as around
from modeling.backbones import configs_sessions as sessions
from modeling.backbones.configs import T4RecConfig
from modeling.backbones.convbert import convbert
from modeling.backbones.deberta import deberta
from modeling.backbones.dropout import quick
from modeling.backbones.funnel import funnel
from modeling.backbones.hstu import HSTU
from modeling.backbones.ligr import esasrec
from modeling.backbones.longformer import longformer
from modeling.backbones.mamba2 import mamba2
from modeling.backbones.objectives import SUPPORTED, check_pair
from modeling.backbones.plain import make
from modeling.backbones.reformer import reformer
from modeling.backbones.sasrec import SASRec
from modeling.backbones.transfo_xl import TransfoXL
from modeling.backbones.xlnet import xlnet


@dataclass(frozen=True)
class Architecture:
    """A row of the table.

    Attributes
    ----------
    config : type
        Class of its configurations.
    make : callable
        ``make(config, causal=)`` is the network.
    """

    config: type[T4RecConfig]
    make: Callable[..., Any]


def _plain(model: Any, **options: Any) -> Callable[..., Any]:
    return partial(make, model, **options)


def _own(network: type[nn.Module]) -> Callable[..., Any]:
    """Networks written here, which never look ahead."""
    return lambda config, causal: network(config)


ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(back.GPT2Config, _plain(transformers.GPT2Model)),
    "transfo-xl": Architecture(back.TransfoXLConfig, _own(TransfoXL)),
    "llama": Architecture(back.LlamaConfig, _plain(transformers.LlamaModel)),
    "qwen3": Architecture(back.Qwen3Config, _plain(transformers.Qwen3Model)),
    "mamba2": Architecture(back.Mamba2Config, mamba2),
    "sasrec": Architecture(sessions.SASRecConfig, _own(SASRec)),
    "esasrec": Architecture(sessions.ESASRecConfig, esasrec),
    "hstu": Architecture(sessions.HSTUConfig, _own(HSTU)),
    "xlnet": Architecture(both.XLNetConfig, xlnet),
    "longformer": Architecture(both.LongformerConfig, longformer),
    "reformer": Architecture(both.ReformerConfig, reformer),
    "roformer": Architecture(both.RoFormerConfig, _plain(transformers.RoFormerModel)),
    "albert": Architecture(around.AlbertConfig, _plain(transformers.AlbertModel, add_pooling_layer=False)),
    "bert": Architecture(around.BertConfig, _plain(transformers.BertModel, add_pooling_layer=False)),
    "convbert": Architecture(around.ConvBertConfig, convbert),
    "deberta": Architecture(around.DebertaConfig, deberta),
    "deberta-v2": Architecture(around.DebertaV2Config, _plain(transformers.DebertaV2Model)),
    "distilbert": Architecture(around.DistilBertConfig, _plain(transformers.DistilBertModel)),
    "electra": Architecture(around.ElectraConfig, _plain(transformers.ElectraModel)),
    "funnel": Architecture(around.FunnelConfig, funnel),
    "megatron-bert": Architecture(
        around.MegatronBertConfig, _plain(transformers.MegatronBertModel, add_pooling_layer=False)
    ),
    "modernbert": Architecture(around.ModernBertConfig, _plain(transformers.ModernBertModel)),
    "mpnet": Architecture(around.MPNetConfig, _plain(transformers.MPNetModel, add_pooling_layer=False)),
    "roberta": Architecture(around.RobertaConfig, _plain(transformers.RobertaModel, add_pooling_layer=False)),
}


class Registry(dict[str, type[T4RecConfig]]):
    """Classes of configurations by name."""

    def parse(self, name: str | type[T4RecConfig]) -> type[T4RecConfig]:
        """The class of that name; a class is returned as it is.

        Raises
        ------
        ValueError
            When there is none.
        """
        if isinstance(name, type):
            return name
        if name not in self:
            raise ValueError(f"backbones of type {name!r} are not supported: use one of {', '.join(SUPPORTED)}")
        return self[name]


transformer_registry = Registry({name: row.config for name, row in ARCHITECTURES.items()})
# The registry of Transformers4Rec has GPT-2 under this name.
transformer_registry["gtp2"] = transformer_registry["gpt2"]


def backbone(config: Any, causal: bool) -> nn.Module:
    """The network of a configuration, with new weights.

    ``network(inputs_embeds=[B, L, D], attention_mask=[B, L])`` returns a tuple that begins with vectors
    [B, L, hidden_size]. Right padding under a mask of zeros changes nothing, L is anything up to the configuration's
    length, and a trace at one shape is right at others.

    Parameters
    ----------
    config : T4RecConfig or transformers.PreTrainedConfig
        Settings of a registered architecture. They are copied.
    causal : bool
        Whether no position may see a later one. Architectures that never look ahead do not care.

    Raises
    ------
    ValueError
        When the architecture is not supported, or cannot be causal as asked.
    """
    check_pair(config.model_type, "clm" if causal else SUPPORTED.get(config.model_type, ("clm",))[0])
    network: nn.Module = ARCHITECTURES[config.model_type].make(config, causal=causal)
    return quick(network)
