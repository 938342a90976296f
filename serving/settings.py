"""The settings of the serving stage: in the YAML of a data set under ``serving:``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from common.settings import Settings


class ServingSettings(Settings):
    """How the model is served."""

    top_k: int = Field(20, ge=1, description="recommendations a session")
    max_batch_size: int = Field(128, ge=1, description="sessions that one pass of the model may take")
    entry_instances: int = Field(2, ge=1, description="processes that prepare requests")
    ranker_instances: int = Field(1, ge=1, description="processes that run the model")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the model runs; auto takes a GPU that is there"
    )
    threads: int = Field(1, ge=1, description="threads a process computes with")
