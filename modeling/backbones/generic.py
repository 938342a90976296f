"""Networks of the transformers library that are not registered here: made from settings, and written as settings."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
from collections.abc import Sequence
from typing import Any

from torch import nn

# Settings that say nothing about the network and do not survive JSON as they are.
_NEEDLESS = ("transformers_version", "model_type", "id2label", "label2id", "_name_or_path", "architectures", "dtype")


def module_from(
    config: Any,
    settings: dict[str, Any] | None = None,
    architecture: str | None = None,
    without: Sequence[str] = (),
) -> nn.Module:
    """A network with new weights.

    Parameters
    ----------
    config : PreTrainedConfig or str
        A configuration, or a model type together with `settings`.
    settings : dict, optional
        See `written`.
    architecture : str, optional
        The class; by default what ``AutoModel`` takes for the configuration.
    without : sequence of {"words", "pooler"}
        Parts that it does not have: its own table of words, and what sums a session up.

    Raises
    ------
    ValueError
        When the class is not one of the transformers library's networks.
    """
    import transformers

    if isinstance(config, str):
        config = transformers.AutoConfig.for_model(config, **_decoded(settings or {}))
    if architecture is None:
        return _finished(transformers.AutoModel.from_config(config), without)
    cls = getattr(transformers, architecture, None)
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)):
        raise ValueError(f"{architecture!r} is no network of the transformers library")
    make: Any = cls
    options = {"add_pooling_layer": False} if "pooler" in without else {}
    return _finished(make._from_config(config, **options), without)


def _finished(module: Any, without: Sequence[str]) -> nn.Module:
    if "words" in without:
        module.set_input_embeddings(nn.Identity())
    # A configuration may ask for weights in half precision; training is in the precision of the rest.
    network: nn.Module = module.float()
    return network


def text_encoder(transformer: Any) -> nn.Module:
    """The part that reads a session: the encoder of an encoder-decoder, or the network itself."""
    config = getattr(transformer, "config", None)
    if getattr(config, "is_encoder_decoder", False) and hasattr(transformer, "get_encoder"):
        encoder = transformer.get_encoder()
        if isinstance(encoder, nn.Module) and encoder is not transformer:
            encoder._whole = type(transformer).__name__  # type: ignore[assignment]
            return encoder
    network: nn.Module = transformer
    return network


def _lacks(transformer: Any) -> list[str]:
    """What of the whole network was left out; see `module_from`."""
    lacking = []
    with contextlib.suppress(AttributeError, NotImplementedError):
        if isinstance(transformer.get_input_embeddings(), nn.Identity):
            lacking.append("words")
    optional = "add_pooling_layer" in inspect.signature(type(transformer).__init__).parameters
    if optional and getattr(transformer, "pooler", None) is None:
        lacking.append("pooler")
    return lacking


def written(transformer: Any, config: Any, probed: bool) -> dict[str, Any]:
    """Model type, settings and class of a network, from which `module_from` makes it again.

    Raises
    ------
    ValueError
        When the class is not of the transformers library, or a setting is no plain value.
    """
    if not hasattr(config, "to_diff_dict"):
        raise ValueError(f"{type(transformer).__name__} cannot be saved: it has no configuration")
    settings = {name: value for name, value in config.to_diff_dict().items() if name not in _NEEDLESS}
    if not probed:
        return {"model_type": config.model_type, "settings": settings}
    import transformers

    name = getattr(transformer, "_whole", type(transformer).__name__)
    if not type(transformer).__module__.startswith("transformers.") or not hasattr(transformers, name):
        raise ValueError(f"{name} cannot be saved: it is no network of the transformers library")
    try:
        settings = json.loads(json.dumps(_encoded(settings), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be saved: its configuration holds more than plain values ({error})") from error
    return {
        "model_type": config.model_type,
        "settings": settings,
        "architecture": name,
        "without": _lacks(transformer),
    }


def _encoded(value: Any) -> Any:
    """Infinities as ``{"float": "inf"}``: JSON has none, and limits of step sizes are."""
    if isinstance(value, dict):
        return {name: _encoded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(one) for one in value]
    return {"float": str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return float(value["float"]) if set(value) == {"float"} else {name: _decoded(v) for name, v in value.items()}
    return [_decoded(one) for one in value] if isinstance(value, list) else value
