"""A Hugging Face backbone over the vectors of a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn

from modeling.backbones.configs import check_pair, transformer_registry
from modeling.blocks.base import Building
from modeling.masking.base import MaskSequence
from modeling.sequence import SessionStates
from modeling.serialization import part

_MODELS = {
    "gpt2": "GPT2Model",
    "xlnet": "XLNetModel",
    "bert": "BertModel",
    "roberta": "RobertaModel",
    "electra": "ElectraModel",
    "albert": "AlbertModel",
}
_WITH_POOLER = ("bert", "roberta", "albert")


def backbone(config: Any) -> nn.Module:
    """The bare Hugging Face model of a configuration, without the pooler that nothing would read.

    Raises
    ------
    ValueError
        When the architecture is not supported.
    """
    if config.model_type not in _MODELS:
        raise ValueError(f"backbones of type {config.model_type!r} are not supported: use one of {', '.join(_MODELS)}")
    options = {"add_pooling_layer": False} if config.model_type in _WITH_POOLER else {}
    model: nn.Module = getattr(transformers, _MODELS[config.model_type])(config, **options)
    return model


@part
class TransformerBlock(Building):
    """Attention over the events of a session.

    Parameters
    ----------
    transformer : T4RecConfig, transformers.PreTrainedConfig or transformers.PreTrainedModel
        A configuration, from which the backbone is made, or a backbone.
    masking : MaskSequence, optional
        The objective; the body passes on the one of its inputs otherwise.
    output_fn : callable, optional
        Takes the vectors [B, L, d_model] from the backbone's output tuple. Blocks with one cannot be saved.

    Raises
    ------
    ValueError
        When the backbone does not support the objective.
    """

    takes_states = True

    def __init__(
        self,
        transformer: Any,
        masking: MaskSequence | None = None,
        output_fn: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.transformer = transformer if isinstance(transformer, nn.Module) else backbone(transformer)
        self._output_fn = output_fn
        self._settings = cast(Any, self.transformer).config
        self.model_type: str = self._settings.model_type
        self.output_dim: int = self._settings.hidden_size
        self.causal = self.model_type == "gpt2"
        if masking is not None:
            self.use_masking(masking)

    def use_masking(self, masking: MaskSequence | None) -> None:
        """Take the objective on: refuse it, or look ahead or not as it needs."""
        if masking is not None:
            check_pair(self.model_type, masking.name)
            self.causal = masking.name == "clm"

    def config(self) -> dict[str, Any]:
        """Architecture and its settings."""
        if self._output_fn is not None:
            raise ValueError("a TransformerBlock with an output_fn cannot be saved")
        settings = self._settings.to_diff_dict()
        settings.pop("transformers_version", None)
        settings.pop("model_type", None)
        return {"model_type": self.model_type, "settings": settings, "causal": self.causal}

    @classmethod
    def from_config(cls, model_type: str, settings: dict[str, Any], causal: bool) -> TransformerBlock:
        """The block that `config` described, with new weights."""
        if model_type not in transformer_registry:
            raise ValueError(f"backbones of type {model_type!r} are not supported")
        block = cls(transformer_registry[model_type](**settings))
        block.causal = causal
        return block

    def build(self, input_dim: int) -> TransformerBlock:
        """Check that the vectors fit."""
        if input_dim != self.output_dim:
            raise ValueError(
                f"the transformer expects vectors of width {self.output_dim}, its input has {input_dim}: "
                f"put an MLPBlock([{self.output_dim}]) before it or give the inputs d_output={self.output_dim}"
            )
        return self

    def forward(self, states: SessionStates | Tensor) -> SessionStates | Tensor:
        """Contextual vectors at the same positions. Padding is never attended to."""
        if isinstance(states, Tensor):
            return self._run(states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device))
        return states.with_values(self._run(states.values, states.attend))

    def _run(self, values: Tensor, attend: Tensor) -> Tensor:
        if self.model_type == "xlnet":
            options: dict[str, Any] = {"attention_mask": attend.to(values.dtype), "use_mems": False}
            if self.causal:
                # 1 where row i may not look at column j.
                ahead = values.new_ones(values.shape[1], values.shape[1]).triu(1)
                options["perm_mask"] = ahead.expand(values.shape[0], -1, -1)
        else:
            options = {"attention_mask": attend.long()}
            if self.model_type == "gpt2":
                options["use_cache"] = False
        output = self.transformer(inputs_embeds=values, return_dict=False, **options)
        return self._output_fn(output) if self._output_fn is not None else output[0]
