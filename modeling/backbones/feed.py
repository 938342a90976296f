"""How vectors and masks are handed to a backbone, and what it answers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from modeling.padding import to_width

# Networks of the transformers library that only ever look back, and number positions from the left.
_TRIANGLES = ("gpt2", "llama", "qwen3")


def plain(transformer: Any, values: Tensor, attend: Tensor, causal: bool, visible: Tensor | None) -> dict[str, Any]:
    """Arguments for a network that `registry.backbone` made: it honours a mask of padding, and needs no more."""
    if visible is not None:
        raise ValueError(f"{transformer.config.model_type} has no query stream: masking 'plm' needs XLNet")
    # Padding is later than every event, so a network that never looks ahead needs no mask of it; and without one it
    # has torch's fused function for a triangle.
    later = transformer.training and transformer.config.model_type in _TRIANGLES and not torch.jit.is_tracing()
    return {"inputs_embeds": values, "attention_mask": None if later else attend.long(), "return_dict": False}


def xlnet(transformer: Any, values: Tensor, attend: Tensor, causal: bool, visible: Tensor | None) -> dict[str, Any]:
    """Arguments for XLNet, whose mask of permutations says who may look at whom.

    With `visible` the answer comes from the query stream, which does not know the vector at its own position: there
    is a query a position, and the mask hides what is not visible from both streams.
    """
    options: dict[str, Any] = {
        "inputs_embeds": values,
        "attention_mask": attend.to(values.dtype),
        "use_mems": False,
        "return_dict": False,
    }
    length = values.shape[1]
    if visible is not None:
        options["perm_mask"] = (~visible).to(values.dtype)
        options["target_mapping"] = torch.eye(length, dtype=values.dtype, device=values.device).expand(
            values.shape[0], -1, -1
        )
    elif causal:
        # 1 where row i may not look at column j.
        ahead = values.new_ones(length, length).triu(1)
        options["perm_mask"] = ahead.expand(values.shape[0], -1, -1)
    return options


class Feed:
    """Hands vectors to a Hugging Face network that nothing is known about but the names of its arguments.

    Parameters
    ----------
    transformer : nn.Module
        Its ``forward`` takes ``inputs_embeds``.

    Raises
    ------
    ValueError
        When it does not.
    """

    def __init__(self, transformer: nn.Module) -> None:
        names = inspect.signature(transformer.forward).parameters
        if "inputs_embeds" not in names:
            raise ValueError(f"{type(transformer).__name__} takes no inputs_embeds: it reads only ids of its own")
        self._masks = "attention_mask" in names
        # A cache is for generating word by word; lists of states and weights would only cost time.
        off = ("use_cache", "output_attentions", "output_hidden_states", "output_router_logits")
        self._options: dict[str, Any] = {name: False for name in off if name in names}
        if "input_ids" in names and names["input_ids"].default is inspect.Parameter.empty:
            self._options["input_ids"] = None
        if "return_dict" in names:
            self._options["return_dict"] = True

    def __call__(
        self, transformer: Any, values: Tensor, attend: Tensor, causal: bool, visible: Tensor | None
    ) -> dict[str, Any]:
        """The arguments of one call."""
        if visible is not None:
            raise ValueError(f"{type(transformer).__name__} has no query stream: masking 'plm' needs XLNet")
        masks = {"attention_mask": attend.long()} if self._masks else {}
        return {"inputs_embeds": values, **masks, **self._options}


def times(name: str, columns: Mapping[str, Tensor], length: int) -> Tensor:
    """The first `length` values a session [B, L] of a column of times.

    Raises
    ------
    ValueError
        When there is no such column, or it has no number an event.
    """
    if name not in columns:
        known = ", ".join(columns) or "no columns: the block must stand right behind the inputs"
        raise ValueError(f"the time_feature {name!r} is none of the model's features, found {known}")
    if columns[name].dim() != 2 or not columns[name].is_floating_point():
        raise ValueError(f"the time_feature {name!r} must be a continuous feature of the events")
    return columns[name][:, :length]


def first_output(output: Any) -> Tensor:
    """The vectors of all positions: the named ``last_hidden_state``, or the first element."""
    found = getattr(output, "last_hidden_state", None)
    if found is None:
        found = output[0]
    if not isinstance(found, Tensor):
        raise ValueError(f"the backbone answers with a {type(found).__name__} instead of vectors: give an output_fn")
    return found


class _Traceable(TorchFunctionMode):
    """Spells what TorchScript's recorder cannot write down in a way that it can: a truth value to scatter is a 1."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in ("scatter", "scatter_"):
            args = [int(value) if isinstance(value, bool) else value for value in args]
            kwargs = {name: int(value) if isinstance(value, bool) else value for name, value in kwargs.items()}
        return func(*args, **kwargs)


@contextmanager
def computable(transformer: nn.Module, values: Tensor) -> Iterator[None]:
    """Run a network where its usual ways do not work: under TorchScript's recorder, and in double precision.

    Mixtures of experts then compute each event's experts side by side. Their usual ways go through the experts in
    turn and skip the ones that nobody chose, which a trace would freeze as it was for the example; or they need matrix
    products that exist in single precision only.
    """
    changed: list[tuple[Any, Any]] = []
    if torch.jit.is_tracing() or values.dtype == torch.float64:
        configs: dict[int, Any] = {id(m.config): m.config for m in transformer.modules() if hasattr(m, "config")}
        for config in configs.values():
            if getattr(config, "_experts_implementation", None) is not None:
                changed.append((config, config._experts_implementation))
                config._experts_implementation = "batched_mm"
    try:
        with _Traceable() if torch.jit.is_tracing() else nullcontext():
            yield
    finally:
        for config, before in changed:
            config._experts_implementation = before


def fit_length(values: Tensor, attend: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The same vectors with zeros for padding, at one fixed length whatever came: [B, limit, D] and [B, limit]."""
    values = values * attend[..., None].to(values.dtype)
    return to_width(values, limit), to_width(attend, limit)
