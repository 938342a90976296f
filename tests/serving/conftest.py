"""A real tritonserver with the echo model, started once for all tests of this folder that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.server import TritonServer
from tests.serving.echo_repository import write_echo_repository


@pytest.fixture(scope="session")
def echo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = write_echo_repository(tmp_path_factory.mktemp("echo") / "model_repository")
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0) as server:
        yield server


@pytest.fixture(scope="session")
def options_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """The same with the inputs that a request may leave out."""
    repository = write_echo_repository(tmp_path_factory.mktemp("options") / "model_repository", options=True)
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0) as server:
        yield server


@pytest.fixture
def echo_repository(tmp_path: Path) -> Path:
    return write_echo_repository(tmp_path / "model_repository")
