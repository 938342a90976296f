"""The settings of the serving stage: in the YAML of a data set under ``serving:``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from common.settings import Settings
from serving.runtime.options import Limits

# Of Triton: in what the model runs.
Backend = Literal["python", "pytorch"]


class ServingSettings(Settings):
    """How the model is served."""

    top_k: int = Field(20, ge=1, description="recommendations a session; a request may ask for fewer")
    max_batch_size: int = Field(128, ge=1, description="sessions of all clients that one pass of the model may take")
    max_waiting: int = Field(1000, ge=1, description="requests that may wait in a process before it says it is busy")
    instances: int = Field(1, ge=1, description="processes that answer, each with workflow and model")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the model runs; auto takes a GPU that is there"
    )
    threads: int = Field(1, ge=1, description="threads a process computes with")
    max_events: int = Field(50_000, ge=1, description="events that one request may hold")
    max_sessions: int = Field(5_000, ge=1, description="sessions that one request may hold")
    max_id_bytes: int = Field(1_024, ge=1, description="bytes of one text value in a request")
    max_listed: int = Field(10_000, ge=1, description="items that a request may exclude, and name as candidates")

    def limits(self) -> Limits:
        """How much one request may hold."""
        return Limits(self.max_events, self.max_sessions, self.max_id_bytes, self.top_k, self.max_listed)
