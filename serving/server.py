"""Run the real tritonserver on a model repository, without Docker.

    with TritonServer(Path("model_repository")) as server:      # started, and its models are ready
        NextItemClient(server.addresses["grpc"]).recommend(events)

`serve_forever` is the same for a person: it prints the addresses and stops on Ctrl-C or SIGTERM. The server is a
process group of its own, listens on localhost unless told otherwise, and dies with the Python that started it. Clients
reach its HTTP through an edge (`serving.edge`), which lets nothing through that could hurt it.
The whole log goes to a file; what people see leaves out the complaints that Triton has about a machine without a GPU.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType

from common.errors import UserError
from common.progress import step
from serving import MODEL, binaries, logs, triton_log
from serving.address import open_http
from serving.edge.settings import MAX_BODY_BYTES, EdgeSettings
from serving.ports import check_ports
from serving.processes import end, end_group, launch, launch_edge
from serving.security import Security, http_headers
from serving.stubs import StubWatch

STOP_SECONDS = 30.0
DRAIN_SECONDS = 5
POLL_SECONDS = 1
LOG_BYTES = 32 << 20


class TritonServer:
    """A tritonserver process on one model repository.

    Parameters
    ----------
    repository : Path
        The folder that ``nextitem export`` wrote.
    host : str
        The address to listen on; ``"0.0.0.0"`` for all.
    http_port, grpc_port, metrics_port : int
        The ports; 0 picks a free one at `start`.
    threads : int
        Threads that one model instance may compute with (OMP_NUM_THREADS and its kin). One is right under load:
        instances that share cores wait for each other.
    log_file : Path, optional
        Where the whole log goes. By default a temporary file, which is kept only when the server fails.
    watch : bool
        Follow changes of the repository, which is how `serving.deploy` brings a new version in.
    arguments : sequence of str
        Further tritonserver options, as they are.
    edge : bool
        Put the HTTP edge in front (`serving.edge`). Without it clients speak to Triton's own HTTP, which one request
        can end: for clients that are trusted, and neither with a token nor with TLS.
    security : Security, optional
        Token and TLS; by default neither.
    max_body_bytes : int
        The largest body that the edge takes.

    Attributes
    ----------
    pid : int or None
        The server's process id while it runs; also the id of its process group.
    """

    def __init__(
        self,
        repository: Path | str,
        host: str = "127.0.0.1",
        http_port: int = 8000,
        grpc_port: int = 8001,
        metrics_port: int = 8002,
        threads: int = 1,
        log_file: Path | str | None = None,
        watch: bool = False,
        arguments: Sequence[str] = (),
        edge: bool = True,
        security: Security | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.repository = Path(repository)
        self.host = host
        self.ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self.threads = threads
        self.watch = watch
        self.arguments = list(arguments)
        self.edge = edge
        self.security = security or Security()
        if not edge and self.security != Security():
            raise ValueError("a token and TLS need the edge")
        self.max_body_bytes = max_body_bytes
        self._chosen_log = Path(log_file) if log_file else None
        self._work: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._edge: subprocess.Popen[bytes] | None = None
        self._failed = False

    def __enter__(self) -> TritonServer:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process id while the server runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def addresses(self) -> dict[str, str]:
        """``host:port`` of ``http``, ``grpc`` and ``metrics``, as a client on this machine reaches them."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return {name: f"{host}:{port}" for name, port in self.ports.items()}

    @property
    def log_file(self) -> Path | None:
        """Where the log is, or None before the first start."""
        return self._chosen_log or (self._work / "tritonserver.log" if self._work else None)

    def start(self) -> None:
        """Start the process and return at once; `wait_ready` waits for the models.

        Raises
        ------
        UserError
            When the repository holds no model, a port is taken or there is no tritonserver.
        """
        if self.pid:
            raise RuntimeError(f"this server runs already as process {self.pid}")
        if not (self.repository / MODEL / "config.pbtxt").is_file():
            raise UserError(f"{self.repository} holds no model named {MODEL}: run 'nextitem export' first")
        self.ports = check_ports(self.host, self.ports)
        self._work = Path(tempfile.mkdtemp(prefix="nextitem-triton-"))
        self._failed = False
        try:
            program = binaries.tritonserver(self._work)
            log_file = self.log_file
            assert log_file is not None
            log_file.parent.mkdir(parents=True, exist_ok=True)
            command = [*program.command, *self._options()]
            limits = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
            environment = program.environment | {f"{name}_NUM_THREADS": str(self.threads) for name in limits}
            log_file.write_bytes(b"")
            # Appended, so that it may be emptied meanwhile.
            with log_file.open("ab") as log:
                self._process = launch(command, environment, log)
                if self.edge:
                    self._edge = launch_edge(self._edge_settings(), self._process.pid, log)
        except BaseException:
            self.stop()
            raise

    def _edge_settings(self) -> EdgeSettings:
        security = self.security
        return EdgeSettings(
            upstream=self._socket,
            host=self.host,
            port=self.ports["http"],
            certificate=str(security.certificate or ""),
            key=str(security.key or ""),
            token=security.token or "",
            max_body_bytes=self.max_body_bytes,
            drain_seconds=DRAIN_SECONDS,
        )

    def _options(self) -> list[str]:
        options = [f"--model-repository={self.repository.resolve()}", *self.security.grpc_options()]
        if self.watch:
            # In neither mode can a client load anything.
            options += ["--model-control-mode=poll", f"--repository-poll-secs={POLL_SECONDS}"]
        addresses = {name: (self.host, port) for name, port in self.ports.items()}
        if self.edge:
            # A socket file, which Triton opens to nobody else; its port has no meaning.
            addresses["http"] = (f"unix:{self._socket}", 1)
        for name, (host, port) in addresses.items():
            options += [f"--{name}-address={host}", f"--{name}-port={port}"]
        options.append(f"--backend-config=python,shm-region-prefix-name={self._shared_memory}")
        # A stub that imports torch on a busy machine takes longer than the 30 s that Triton allows.
        options.append("--backend-config=python,stub-timeout-seconds=120")
        # Triton also waits for idle connections to close, and clients keep theirs open: by default for 30 seconds.
        options.append(f"--exit-timeout-secs={DRAIN_SECONDS}")
        if not Path("/dev/nvidiactl").exists():
            options.append("--allow-gpu-metrics=false")
        return [*options, *self.arguments]

    @property
    def _shared_memory(self) -> str:
        return f"{self._work.name}-" if self._work else ""

    @property
    def _socket(self) -> str:
        # Beside the shared memory, because the path of a socket must be short, and a temporary folder's may be long.
        return f"/dev/shm/{self._shared_memory}http"

    def wait_ready(self, models: Sequence[str] = (MODEL,), timeout: float = 240.0) -> None:
        """Wait until each of `models` answers.

        The readiness of the server says nothing of its models (it is true without any), so they are asked.

        Parameters
        ----------
        models : sequence of str
            Names of models.
        timeout : float
            Seconds.

        Raises
        ------
        UserError
            When the server ends by itself, with the reason from its log, or when the time is over.
        """
        with step("Starting Triton"):
            deadline = time.monotonic() + timeout
            while not all(self._ready(model) for model in models):
                self.check_alive()
                if time.monotonic() > deadline:
                    self._failed = True
                    raise UserError(f"Triton was not ready after {timeout:g} s: see {self.log_file}")
                time.sleep(0.1)

    def _ready(self, model: str) -> bool:
        asked = open_http(self.addresses["http"], 5, self.security.own_context())
        with asked as connection, contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", f"/v2/models/{model}/ready", headers=http_headers(self.security.token))
            return connection.getresponse().status == 200
        return False

    def check_alive(self) -> None:
        """Raise a `UserError` with the reason from the log when the server or its edge has ended by itself."""
        if self._process is None:
            raise RuntimeError("this server was not started")
        for name, process in (("Triton", self._process), ("the HTTP edge", self._edge)):
            code = process.poll() if process else None
            if code is not None:
                self._failed = True
                ending = f"by signal {-code}" if code < 0 else f"with code {code}"
                log = self.log_text()
                if process is self._edge:
                    log = "\n".join(line for line in log.splitlines() if " edge.py:" in line)
                reason = triton_log.failure_reason(log) or f"it ended {ending}"
                raise UserError(f"{name} stopped: {reason} (log: {self.log_file})")

    def log_text(self) -> str:
        """The log so far."""
        path = self.log_file
        return path.read_text(encoding="utf-8", errors="replace") if path and path.is_file() else ""

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Let requests in flight finish, stop the server and everything it started, remove the temporary files.

        May be called at any time and more than once. Whatever of its process group is left after `timeout` seconds
        is killed.
        """
        deadline = time.monotonic() + timeout
        try:
            # The edge first, while there is somebody to answer the requests that it still holds.
            end(self._edge, timeout)
            end(self._process, max(0.0, deadline - time.monotonic()))
        finally:
            # Forgotten at once: a second stop must not signal whoever has been given this process id by then.
            ended, self._process = [self._process, self._edge], None
            self._edge = None
            if ended[0] is not None:
                end_group(ended[0].pid)
            for process in filter(None, ended):
                process.wait()
            self._clean()

    def _clean(self) -> None:
        if self._work is None:
            return
        for region in Path("/dev/shm").glob(f"{self._shared_memory}*"):
            region.unlink(missing_ok=True)
        shutil.rmtree(self._work / "backends", ignore_errors=True)
        if not self._failed or self._chosen_log:
            shutil.rmtree(self._work, ignore_errors=True)


@contextlib.contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end a block as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM, signal.SIGHUP] if threading.current_thread() is threading.main_thread() else []
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve_forever(server: TritonServer, announce: Callable[[str], None] = print, log_format: str = "text") -> int:
    """Serve until Ctrl-C, SIGTERM or SIGHUP, and stop cleanly.

    Parameters
    ----------
    server : TritonServer
        Not yet started.
    announce : callable
        Receives the lines with the addresses.
    log_format : {"text", "json"}
        Lines for people; or one JSON object a line on standard output, with all of Triton's log.

    Returns
    -------
    int
        0, the exit code.

    Raises
    ------
    UserError
        When the server cannot start, ends by itself, or goes on without the process that computes its answers.
    """

    def find() -> Path | None:
        return server.log_file

    # A file that somebody asked for is theirs to rotate; ours must not fill the disk, or a container's memory.
    limit = None if server._chosen_log else LOG_BYTES
    log = logs.JsonLog(find, limit) if log_format == "json" else logs.TextLog(announce, find, limit)
    stubs = StubWatch()
    with contextlib.suppress(KeyboardInterrupt), _signals_as_interrupt(), log.follower, server:
        log.ready(server.addresses)
        while True:
            time.sleep(0.5)
            server.check_alive()
            if stubs.all_gone(server.pid):
                server._failed = True
                raise UserError(
                    f"Triton was stopped: the process of its model ended by itself, as for want of memory "
                    f"(log: {server.log_file})"
                )
    log.stopped()
    return 0
