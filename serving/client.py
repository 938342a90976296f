"""Ask a running server for recommendations, over gRPC or HTTP.

    with NextItemClient("127.0.0.1:8001") as client:
        answer = client.recommend({"session_id": [7, 7], "item_id": ["mug", "tea"], "time": ["2024-05-01T10:00:00", …]})
        answer.item_id[0]                           # the best items for session 7, best first

The columns are those of the raw events, under their original names. The client asks the server once which columns
the model takes, and converts to them. Importing this module loads neither pandas nor torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from serving import MODEL
from serving.columns import Column, convert_events

PROTOCOLS = ("grpc", "http")


@dataclass(frozen=True)
class Recommendations:
    """The answer: one entry a session, in the order in which the sessions first appear in the request.

    Attributes
    ----------
    session_id : list
        S ids, as they came in.
    item_id : list of list
        S lists of k original item ids, best first.
    score : ndarray
        [S, k] float32; higher is better, float32's lowest number where fewer than k items can be recommended.
    unknown_events : ndarray
        [S] int64: how many of the session's events show an item that the model does not know.
    """

    session_id: list[Any]
    item_id: list[list[Any]]
    score: NDArray[np.float32]
    unknown_events: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.session_id)

    def to_dict(self) -> dict[str, list[Any]]:
        """Plain lists that JSON can hold; a score that is not finite becomes None."""
        scores = [[value if np.isfinite(value) else None for value in row] for row in self.score.tolist()]
        return {
            "session_id": list(self.session_id),
            "item_id": [list(row) for row in self.item_id],
            "score": scores,
            "unknown_events": self.unknown_events.tolist(),
        }


class NextItemClient:
    """A connection to a server that holds the model ``nextitem``.

    Parameters
    ----------
    url : str
        ``host:port`` of the protocol's port, without a scheme.
    protocol : str
        ``"grpc"`` or ``"http"``; the answers are the same.
    timeout : float
        Seconds that one request may take.

    Notes
    -----
    Not for several threads at once over HTTP: give each thread a client of its own.
    """

    def __init__(self, url: str = "127.0.0.1:8001", protocol: str = "grpc", timeout: float = 60.0) -> None:
        if protocol not in PROTOCOLS:
            raise UserError(f"protocol {protocol!r} is not known: choose grpc or http")
        self.url = re.sub(r"^\w+://", "", url).rstrip("/")
        self.protocol = protocol
        self.timeout = timeout
        self._inputs: dict[str, str] | None = None
        self._limit: int | None = None
        if not re.fullmatch(r".+:\d+", self.url):
            raise UserError(f"{url!r} is not an address: give host:port, like 127.0.0.1:8001")
        self._connection: Any
        if protocol == "grpc":
            import tritonclient.grpc as module

            # A proxy for the web does not speak gRPC, and must not see what goes to this machine.
            arguments = [("grpc.enable_http_proxy", 0)]
            arguments += [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
            self._connection = module.InferenceServerClient(self.url, channel_args=arguments)
        else:
            import tritonclient.http as module

            self._connection = module.InferenceServerClient(
                self.url, connection_timeout=timeout, network_timeout=timeout
            )
        self._module = module

    def __enter__(self) -> NextItemClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ready(self) -> bool:
        """Whether the server answers and the model is loaded."""
        try:
            return bool(self._call("is_model_ready", MODEL))
        except UserError:
            return False

    @property
    def inputs(self) -> dict[str, str]:
        """Column name -> Triton data type of what the model takes, asked once."""
        if self._inputs is None:
            metadata = self._call("get_model_metadata", MODEL)
            if self.protocol == "grpc":
                tensors = {part.name: (part.datatype, list(part.shape)) for part in metadata.inputs}
                outputs = {part.name: list(part.shape) for part in metadata.outputs}
            else:
                tensors = {part["name"]: (part["datatype"], part["shape"]) for part in metadata["inputs"]}
                outputs = {part["name"]: part["shape"] for part in metadata["outputs"]}
            self._inputs = {name: datatype for name, (datatype, _) in tensors.items()}
            last = int((outputs.get("item_id") or [-1])[-1])
            self._limit = last if last > 0 else None
        return self._inputs

    def recommend(self, events: Mapping[str, Column], top_k: int | None = None) -> Recommendations:
        """Recommend next items for the sessions in `events`.

        Parameters
        ----------
        events : mapping of str to sequence
            Column name -> N values, one a raw event, any number of sessions in any order. Dates and times may be
            ISO 8601 text or Python's, numpy's and pandas' own types. Further columns are ignored.
        top_k : int, optional
            How many items a session; at most, and by default, as many as were exported.

        Returns
        -------
        Recommendations

        Raises
        ------
        UserError
            When a column is missing or does not convert (with its name and the row, from 1), when there are no
            events, when `top_k` is out of range, when no server answers, or with the server's reason for refusing.
        """
        if top_k is not None and top_k < 1:
            raise UserError(f"top_k is {top_k}: ask for at least one item")
        columns = convert_events(events, self.inputs)
        self._check_top_k(top_k, self._limit)
        tensors = []
        for name, column in columns.items():
            tensor = self._module.InferInput(name, list(column.shape), self.inputs[name])
            tensor.set_data_from_numpy(column)
            tensors.append(tensor)
        answer = self._call("infer", MODEL, tensors)
        outputs = {name: self._output(answer, name) for name in ("session_id", "item_id", "score", "unknown_events")}
        self._check_top_k(top_k, outputs["item_id"].shape[1])
        return Recommendations(
            _values(outputs["session_id"]),
            _values(outputs["item_id"][:, :top_k]),
            np.asarray(outputs["score"][:, :top_k], dtype=np.float32),
            np.asarray(outputs["unknown_events"], dtype=np.int64),
        )

    @staticmethod
    def _check_top_k(top_k: int | None, limit: int | None) -> None:
        if top_k is not None and limit is not None and top_k > limit:
            raise UserError(f"top_k is {top_k}, but the model was exported with {limit}: ask for at most {limit}")

    def _output(self, answer: Any, name: str) -> NDArray[Any]:
        array = answer.as_numpy(name)
        if array is None:
            raise UserError(f"the model at {self.url} does not answer with {name}: export it again")
        return np.asarray(array)

    def _call(self, method: str, *arguments: Any) -> Any:
        from tritonclient.utils import InferenceServerException

        options = {"client_timeout": self.timeout} if self.protocol == "grpc" else {}
        try:
            return getattr(self._connection, method)(*arguments, **options)
        except InferenceServerException as error:
            status, message = str(error.status() or ""), str(error.message())
            # A server that is there may be "unavailable" too, with a full queue for instance.
            if "UNAVAILABLE" in status and re.search(r"connect|resolv", message):
                raise self._nobody() from error
            if "DEADLINE" in status:
                raise self._late() from error
            raise UserError(f"the server at {self.url} refused: {server_reason(message)}") from error
        except TimeoutError as error:
            raise self._late() from error
        except OSError as error:
            raise self._nobody() from error
        except Exception as error:
            # What speaks another protocol ends in the HTTP parser, whose errors have no class in common.
            raise UserError(f"what answers at {self.url} does not speak {self.protocol} ({error})") from error

    def _late(self) -> UserError:
        return UserError(f"the server at {self.url} did not answer in {self.timeout:g} s")

    def _nobody(self) -> UserError:
        return UserError(f"no server answers at {self.url}: start one with 'nextitem serve'")


def _values(array: NDArray[Any]) -> list[Any]:
    """Nested lists of Python values; bytes become text."""
    if array.dtype != np.object_:
        return list(array.tolist())
    if array.ndim > 1:
        return [_values(row) for row in array]
    return [value.decode("utf-8") if isinstance(value, bytes) else value for value in array]


def server_reason(message: str) -> str:
    """The reason in an error reply of Triton's, in one line and without its wrappings.

    Triton wraps what a model says in the names of the ensemble and of the model, and adds a trace when the model
    raised instead of replying.
    """
    if message.startswith("{"):
        message = str(json.loads(message).get("error", message))
    message = message.split("\n\nAt:")[0]
    message = re.sub(r"^\[(\w+\.)?\w+\] ", "", message)
    message = re.sub(r"\[request id: \S+\] ", "", message)
    message = re.sub(r"^in ensemble '[^']*', ", "", message)
    return re.sub(r"^Failed to process the request\(s\) for model '[^']*', message: ", "", message).strip()
