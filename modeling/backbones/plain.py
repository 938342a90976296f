"""What all backbones made of Hugging Face's parts have in common."""

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

from torch import nn

from modeling.backbones.dropout import ATTENTION

M = TypeVar("M", bound=nn.Module)


def make(model: type[M], config: Any, causal: bool, **options: Any) -> M:
    """A Hugging Face model for sessions.

    The configuration is copied; the copy looks ahead or not as asked, keeps nothing from call to call, and computes
    attention with torch's fused function unless its weights are wanted. The table of
    words goes: the vectors come from the inputs, so it would be saved and never trained.

    Parameters
    ----------
    model : type
        Class of the model.
    config : transformers.PreTrainedConfig
        Its settings.
    causal : bool
        Whether positions see only what is before them, for the models that can do both.
    **options
        More for the constructor.
    """
    config = copy.deepcopy(config)
    if hasattr(config, "is_decoder"):
        config.is_decoder = causal
    if hasattr(config, "use_cache"):
        config.use_cache = False
    if config._attn_implementation is None:
        fused = getattr(model, "_supports_sdpa", False) and not config.output_attentions
        config._attn_implementation = "sdpa" if fused else "eager"
    network = model(config, **options)
    if config._attn_implementation == "sdpa":
        cast(Any, network).config._attn_implementation = ATTENTION
    network.set_input_embeddings(nn.Identity())  # type: ignore[operator]
    return network


def with_weights_of(new: M, old: nn.Module) -> M:
    """`new` with the weights of `old`: they were drawn as the architecture wants it."""
    weights = old.state_dict()
    new.load_state_dict({name: weights[name] for name in new.state_dict()})
    return new
