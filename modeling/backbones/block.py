"""A Hugging Face backbone over the vectors of a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from modeling.backbones import feed
from modeling.backbones.generic import module_from, text_encoder, written
from modeling.backbones.objectives import SUPPORTED, check_pair
from modeling.backbones.probe import Probe, input_width, probe
from modeling.backbones.registry import backbone, transformer_registry
from modeling.blocks.base import Building
from modeling.sequence import SessionStates
from modeling.serialization import part


class TransformerPrepare(nn.Module):
    """Base of what computes further arguments for the transformer: subclasses write ``forward``.

    Parameters
    ----------
    transformer : nn.Module
        The backbone; kept as it is, not as a part.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self._transformer = (transformer,)

    @property
    def transformer(self) -> nn.Module:
        """The backbone."""
        return self._transformer[0]

    def forward(self, inputs_embeds: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments `kwargs` of the transformer, changed or extended, for the vectors [B, L, D]."""
        raise NotImplementedError


@part
class TransformerBlock(Building):
    """Attention over the events of a session.

    Parameters
    ----------
    transformer : T4RecConfig, transformers.PreTrainedConfig or nn.Module
        A configuration, from which the backbone is made with new weights, or a backbone whose ``forward`` takes
        ``inputs_embeds``. One that is not registered is tried out by experiment (`probe`): which way it looks decides
        what it can be trained with.
    masking : MaskSequence, optional
        The objective; the body passes on the one of its inputs otherwise.
    prepare_module : TransformerPrepare or callable, optional
        ``prepare(inputs_embeds, kwargs)`` returns the arguments of the transformer; a class is given the transformer
        first. Blocks with one cannot be saved.
    output_fn : callable, optional
        Takes the vectors [B, L, width] from the backbone's output. Blocks with one cannot be saved.

    Attributes
    ----------
    causal : bool
        Whether no position looks ahead.

    Raises
    ------
    ValueError
        When the backbone cannot be used, or not with the objective.
    """

    takes_states = True

    def __init__(
        self,
        transformer: Any,
        masking: Any = None,
        prepare_module: Any = None,
        output_fn: Callable[[Any], Tensor] | None = None,
        *,
        _causal: bool | None = None,
        _probe: Probe | None = None,
    ) -> None:
        super().__init__()
        self._given = isinstance(transformer, nn.Module)
        config = getattr(transformer, "config", None) if self._given else transformer
        self.model_type: str = getattr(config, "model_type", "") or type(transformer).__name__
        self._settings: Any = cast(Any, config)
        self._limit: int | None = None
        self._output_fn = output_fn
        self.probe: Probe | None = None
        # Networks that the registry made and that are no plain ones of the transformers library.
        self._own = type(transformer).__module__.startswith("modeling.backbones.") if self._given else True
        if self.model_type in SUPPORTED and self._own and (not self._given or self.model_type == "xlnet"):
            self.causal = SUPPORTED[self.model_type][0] == "clm" if _causal is None else _causal
            self.transformer: Any = transformer if self._given else backbone(transformer, self.causal)
            self.input_dim = input_width(self.transformer)
            self.output_dim = int(self._settings.hidden_size)
            self._feed: Any = feed.xlnet if self.model_type == "xlnet" else feed.plain
        else:
            self.transformer = transformer if self._given else module_from(transformer)
            config = getattr(self.transformer, "config", config)
            self.transformer = text_encoder(self.transformer)
            self.probe = _probe or probe(self.transformer, config)
            self.causal = not self.probe.looks_ahead
            self.input_dim, self.output_dim = input_width(self.transformer, self._settings), self.probe.width
            self._feed = feed.Feed(self.transformer)
        self._prepare = prepare_module(self.transformer) if isinstance(prepare_module, type) else prepare_module
        if masking is not None:
            self.use_masking(masking)

    @classmethod
    def from_registry(
        cls,
        transformer: str,
        d_model: int,
        n_head: int,
        n_layer: int,
        total_seq_length: int,
        masking: Any = None,
        **arguments: Any,
    ) -> TransformerBlock:
        """A block around a registered architecture.

        Parameters
        ----------
        transformer : str
            A name of `transformer_registry`.
        d_model, n_head, n_layer, total_seq_length, **arguments
            Go to the ``build`` of its configuration.
        masking : MaskSequence, optional
            The objective.

        Raises
        ------
        ValueError
            When nothing has that name.
        """
        if transformer not in transformer_registry:
            known = ", ".join(transformer_registry)
            raise ValueError(f"no transformer is registered as {transformer!r}: use one of {known}")
        build = transformer_registry[transformer].build
        return cls(build(d_model, n_head, n_layer, total_seq_length, **arguments), masking)

    def use_masking(self, masking: Any) -> None:
        """Take the objective on: refuse it, or look ahead or not as it needs.

        A registered backbone that was made here from a configuration is made again, with new weights, when it must
        look the other way.
        """
        if masking is None:
            return
        if self.model_type in SUPPORTED:
            check_pair(self.model_type, masking.name)
        if self.probe is not None:
            self.probe.refuse(self.model_type, masking.name)
            return
        causal = masking.name == "clm"
        if causal != self.causal:
            self.causal = causal
            if not self._given:
                self.transformer = backbone(self._settings, causal)

    def use_length(self, limit: int) -> None:
        """Learn how many positions reach the backbone at most."""
        self._limit = limit

    def config(self) -> dict[str, Any]:
        """Architecture and its settings."""
        if self._output_fn is not None or self._prepare is not None:
            raise ValueError("a TransformerBlock with an output_fn or a prepare_module cannot be saved")
        if self.probe is None or (self._given and self._own):
            return {**written(self.transformer, self._settings, probed=False), "causal": self.causal}
        found = written(self.transformer, self._settings, probed=True)
        return {**found, "causal": self.causal, "probe": self.probe.to_json()}

    @classmethod
    def from_config(
        cls,
        model_type: str,
        settings: dict[str, Any],
        causal: bool,
        architecture: str | None = None,
        probe: dict[str, Any] | None = None,
        without: Sequence[str] = (),
    ) -> TransformerBlock:
        """The block that `config` described, with new weights.

        Raises
        ------
        ValueError
            When it names a class that is neither this library's nor that of the transformers library.
        """
        if probe is not None and architecture is not None:
            return cls(module_from(model_type, settings, architecture, without), _probe=Probe(**probe))
        if model_type not in SUPPORTED:
            raise ValueError(f"backbones of type {model_type!r} are not supported")
        return cls(transformer_registry[model_type](**settings), _causal=causal)

    def build(self, input_dim: int) -> TransformerBlock:
        """Check that the vectors fit."""
        if input_dim != self.input_dim:
            raise ValueError(
                f"the transformer expects vectors of width {self.input_dim}, its input has {input_dim}: "
                f"put an MLPBlock([{self.input_dim}]) before it or give the inputs d_output={self.input_dim}"
            )
        return self

    @property
    def reads_columns(self) -> bool:
        """Whether the backbone reads times from a column, as HSTU may (``time_feature``)."""
        return bool(getattr(self._settings, "time_feature", "")) and self.model_type in SUPPORTED

    def forward(
        self, states: SessionStates | Tensor, columns: Mapping[str, Tensor] | None = None
    ) -> SessionStates | Tensor:
        """Contextual vectors at the same positions. Padding is never attended to.

        Parameters
        ----------
        states : SessionStates or Tensor [B, L, D]
            The vectors.
        columns : mapping of str to Tensor [B, L or more], optional
            What the vectors were made from; only with `reads_columns`.

        Raises
        ------
        ValueError
            When the column of times is not there.
        """
        if isinstance(states, Tensor):
            attend = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
            return self._run(states, attend, None, columns)
        return states.with_values(self._run(states.values, states.attend, states.visible, columns))

    def _run(
        self, values: Tensor, attend: Tensor, visible: Tensor | None, columns: Mapping[str, Tensor] | None
    ) -> Tensor:
        length = values.shape[1]
        if self.probe is not None:
            if self.probe.fixed and self._limit is None:
                raise ValueError(f"{self.model_type} needs sessions of one fixed length: call use_length(limit) first")
            # A trace freezes what Python makes of the length (loops over events, chunks), so there is only one.
            if self._limit is not None and (self.probe.fixed or torch.jit.is_tracing()):
                values, attend = feed.fit_length(values, attend, self._limit)
        options = self._feed(self.transformer, values, attend, self.causal, visible)
        if self.reads_columns:
            options["gaps"] = feed.times(self._settings.time_feature, columns or {}, length)
        if self._prepare is not None:
            options = self._prepare(values, options)
        with feed.computable(self.transformer, values):
            output = self.transformer(**options)
        found = self._output_fn(output) if self._output_fn is not None else feed.first_output(output)
        return found[:, :length]
