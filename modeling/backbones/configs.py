"""The configurations' common voice: one ``build`` for all of them, in terms that every backbone shares.

A configuration is Hugging Face's class (or one of ours) with `T4RecConfig` in front. Each says, in one table, what
its library calls the width, the heads, the dropouts and so on; everything else is here. Every ``build`` sets every
dropout of the backbone, an inner width of four times `d_model` where there is one, and tables of positions for the
sessions only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

C = TypeVar("C", bound="T4RecConfig")


@dataclass(frozen=True)
class Sizes:
    """What ``build`` was asked for.

    Attributes
    ----------
    width, heads, layers, length : int
        `d_model`, `n_head`, `n_layer` and the longest session in events, a [MASK] included.
    act : str
        Activation of the inner layers.
    init, eps, dropout : float
        Standard deviation of the first weights, epsilon of the layer norms, probability of dropping out.
    pad : int
        Padding id.
    """

    width: int
    heads: int
    layers: int
    length: int
    act: str
    init: float
    eps: float
    dropout: float
    pad: int

    @property
    def positions(self) -> int:
        """Rows of a table of positions: RoBERTa and its relatives count from behind the padding id, MPNet from 2."""
        return self.length + 2 + self.pad

    @property
    def tokens(self) -> dict[str, Any]:
        """No words: the vectors come from the inputs. Tables with a padding row insist on having that row."""
        return {"vocab_size": self.pad + 1, "pad_token_id": self.pad, "bos_token_id": None, "eos_token_id": None}

    @property
    def bert(self) -> dict[str, Any]:
        """The arguments by the names of BERT and its relatives."""
        return {
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "hidden_act": self.act,
            "initializer_range": self.init,
            "layer_norm_eps": self.eps,
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": self.dropout,
            "max_position_embeddings": self.positions,
            "type_vocab_size": 1,
            **self.tokens,
        }


def must_be_even(value: int, what: str, why: str) -> None:
    """Refuse sizes that cannot be halved.

    Raises
    ------
    ValueError
        Naming the size and the reason.
    """
    if value % 2:
        raise ValueError(f"{what} must be even, not {value}: {why}")


def check_rotary(sizes: Sizes) -> None:
    """Refuse heads that rotary positions cannot turn."""
    must_be_even(sizes.width // sizes.heads, "d_model / n_head", "rotary positions turn pairs of values")


class T4RecConfig:
    """What the configurations have beyond Hugging Face's: one way to make them, and models from them."""

    @classmethod
    def settings(cls, sizes: Sizes) -> dict[str, Any]:
        """The constructor's arguments for these sizes."""
        raise NotImplementedError

    @classmethod
    def build(
        cls: type[C],
        d_model: int,
        n_head: int,
        n_layer: int,
        total_seq_length: int,
        hidden_act: str = "gelu",
        initializer_range: float = 0.01,
        layer_norm_eps: float = 1e-12,
        dropout: float = 0.3,
        pad_token: int = 0,
        log_attention_weights: bool = False,
        **arguments: Any,
    ) -> C:
        """A configuration from the arguments that all backbones share.

        Parameters
        ----------
        d_model, n_head, n_layer : int
            Width of the vectors, attention heads, layers.
        total_seq_length : int
            The longest session in events. Masked objectives put a [MASK] behind at most one event fewer.
        hidden_act : str
            Activation of the inner layers, by Hugging Face's name.
        initializer_range : float
            Standard deviation of the first weights.
        layer_norm_eps : float
            Epsilon of the layer norms. Transformers4Rec's 0.03 is as large as the variance that it is added to.
        dropout : float
            Of embeddings, layers and attention weights alike.
        pad_token : int
            Padding id.
        log_attention_weights : bool
            The backbone returns its attention weights too (``output_attentions``).
        **arguments
            Others of the configuration's constructor; they win over everything above.

        Raises
        ------
        ValueError
            When the heads do not divide the width, or a size is not positive.
        """
        for name, value in (("d_model", d_model), ("n_head", n_head), ("n_layer", n_layer)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if total_seq_length < 1:
            raise ValueError(f"total_seq_length must be at least 1, not {total_seq_length}")
        if d_model % n_head:
            raise ValueError(f"d_model={d_model} must be a multiple of n_head={n_head}")
        sizes = Sizes(
            d_model,
            n_head,
            n_layer,
            total_seq_length,
            hidden_act,
            initializer_range,
            layer_norm_eps,
            dropout,
            pad_token,
        )
        more = {"output_attentions": True} if log_attention_weights else {}
        return cls(**{**cls.settings(sizes), **more, **arguments})

    def to_huggingface_torch_model(self) -> nn.Module:
        """The bare backbone, for the first of the objectives that it supports."""
        from modeling.backbones.registry import SUPPORTED, backbone

        return backbone(self, causal=SUPPORTED[self.model_type][0] == "clm")  # type: ignore[attr-defined]

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


class GatedConfig(T4RecConfig):
    """Backbones of the Llama kind, whose own activation (SiLU) and epsilon (of an RMS norm) are better defaults."""

    @classmethod
    def build(
        cls: type[C],
        d_model: int,
        n_head: int,
        n_layer: int,
        total_seq_length: int,
        hidden_act: str = "silu",
        initializer_range: float = 0.01,
        layer_norm_eps: float = 1e-6,
        dropout: float = 0.3,
        pad_token: int = 0,
        log_attention_weights: bool = False,
        **arguments: Any,
    ) -> C:
        """See `T4RecConfig.build`. An RMS norm without a mean needs an epsilon that a zero vector survives."""
        return super().build(
            d_model, n_head, n_layer, total_seq_length, hidden_act, initializer_range, layer_norm_eps, dropout,
            pad_token, log_attention_weights, **arguments,
        )  # fmt: skip
