"""The settings of the training stage: in the YAML of a data set under ``model:``, as flags, or from Python."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from common.settings import Settings
from modeling.backbones.objectives import SUPPORTED, check_pair


class ModelSettings(Settings):
    """How to build and train a model. Every key has a default that suits data of some ten thousand sessions."""

    architecture: str = Field("gpt2", description=f"the backbone: {', '.join(SUPPORTED)}")
    masking: Literal["clm", "mlm", "plm", "rtd"] | None = Field(
        None,
        description="the objective: causal, masked, permuted or replaced token detection; by default the one that fits "
        "the architecture",
    )
    loss: Literal["cross-entropy", "sampled-softmax", "gbce", "bpr-max", "top1-max"] = Field(
        "cross-entropy", description="over the whole catalogue, or over sampled items where it is large"
    )
    features: Literal["all", "ids"] = Field("all", description="use side features, or item ids only")
    d_model: int = Field(64, ge=2, description="width of the vectors")
    n_layer: int = Field(2, ge=1, description="layers")
    n_head: int = Field(4, ge=1, description="attention heads; must divide d_model")
    dropout: float = Field(0.2, ge=0, lt=1, description="everywhere in the backbone")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability spread over the catalogue")
    mlm_probability: float = Field(0.2, ge=0, lt=1, description="share of the events that masked training hides")
    last_item_probability: float = Field(
        0.5, ge=0, le=1, description="share of the sessions of which masked training hides the last event alone"
    )
    discriminator_loss_weight: float = Field(
        1.0, ge=0, description="of replaced token detection, beside the generator's loss"
    )
    sample_from_batch: bool = Field(
        True, description="whether replaced token detection draws items of the batch, or of the whole catalogue"
    )
    learning_rate: float = Field(0.002, gt=0, description="the highest, after the warm-up")
    weight_decay: float = Field(0.01, ge=0, description="of matrices; not of biases and norms")
    batch_size: int = Field(128, ge=1, description="sessions a step")
    epochs: int = Field(10, ge=1, description="at most this many passes over the training window")
    patience: int = Field(4, ge=1, description="stop after this many epochs without a better NDCG@20 on validation")
    max_minutes: float | None = Field(
        None, gt=0, description="stop training then; the learning rate decays to fit. Makes a run depend on speed"
    )
    seed: int = Field(0, ge=0, description="of weights, dropout, masks and shuffling")
    evidence: bool = Field(
        True, description="add counts of pairs of items to the scores, weighed by the validation window, if that helps"
    )
    exclude: Literal["none", "last", "seen"] = Field(
        "last", description="items of the session that are never recommended"
    )
    top_k: int = Field(100, ge=1, description="the most recommendations a request may ask for")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of the products in training: bfloat16 is faster where the processor or the GPU has instructions "
        "for it; sums and weights stay in float32",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    threads: int | None = Field(None, ge=1, description="CPU threads; by default half of the cores")

    @model_validator(mode="after")
    def _fit_together(self) -> ModelSettings:
        if self.d_model % self.n_head:
            raise ValueError(f"n_head ({self.n_head}) must divide d_model ({self.d_model})")
        if self.label_smoothing and self.loss != "cross-entropy":
            raise ValueError(f"label_smoothing is for the loss 'cross-entropy', not {self.loss!r}")
        check_pair(self.architecture, self.objective)
        return self

    @field_validator("architecture")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SUPPORTED:
            raise ValueError(f"must be one of {', '.join(SUPPORTED)}")
        return name

    @property
    def objective(self) -> str:
        """The masking to use: the chosen one, or the architecture's own."""
        return self.masking or SUPPORTED[self.architecture][0]
