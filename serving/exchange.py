"""What the clients share: the address, the model's contract, tensors out, answers in, errors for people.

`serving.client.NextItemClient` waits for the server, `serving.aio.AsyncNextItemClient` lets others run meanwhile; all
the rest is here. Importing this module loads neither pandas nor torch.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from serving.address import Address, find_ca_file, tls_context
from serving.columns import Column, convert_column, convert_events
from serving.runtime.options import OPTIONS
from serving.security import TOKEN_VARIABLE, find_token, grpc_headers, http_headers

_OUTPUTS = ("session_id", "item_id", "score", "unknown_events")


class Unreachable(UserError):
    """No server answers at the address, or not in time."""


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


@dataclass(frozen=True)
class Contract:
    """What the server's model takes.

    Attributes
    ----------
    inputs : dict of str to str
        Event column -> Triton data type.
    options : dict of str to str
        The same of the inputs that a request may leave out; none in exports of earlier versions.
    limit : int or None
        Items a session that it gives at most, where it says so.
    """

    inputs: dict[str, str]
    options: dict[str, str]
    limit: int | None

    @classmethod
    def of(cls, metadata: Any) -> Contract:
        """Read a model's metadata: a message of gRPC's, or a dict of HTTP's."""
        if not isinstance(metadata, dict):
            parts = {"inputs": metadata.inputs, "outputs": metadata.outputs}
            metadata = {
                kind: [{"name": part.name, "datatype": part.datatype, "shape": list(part.shape)} for part in found]
                for kind, found in parts.items()
            }
        types = {part["name"]: part["datatype"] for part in metadata["inputs"]}
        shapes = {part["name"]: part["shape"] for part in metadata["outputs"]}
        last = int((shapes.get("item_id") or [-1])[-1])
        return cls(
            {name: kind for name, kind in types.items() if name not in OPTIONS},
            {name: kind for name, kind in types.items() if name in OPTIONS},
            last if last > 0 else None,
        )


class Exchange:
    """A client but for the waiting. See `NextItemClient` for the parameters."""

    _package: ClassVar[str]
    _http_timeouts: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        protocol: str = "grpc",
        timeout: float = 60.0,
        token: str | None = None,
        tls: bool = False,
        ca_file: Path | str | None = None,
    ) -> None:
        address = Address.parse(url, protocol, tls)
        self.url, self.protocol, self.tls = address.place, address.protocol, address.tls
        self.timeout = timeout
        self.token = find_token(token)
        self.ca_file = find_ca_file(ca_file)
        if self.tls:
            # A file without certificates is found now, and not by each library in its own words.
            tls_context(self.ca_file)
        self._contract: Contract | None = None
        # The modules of both protocols, waiting or not, have classes of the same names.
        self._module: Any = importlib.import_module(self._package.format(self.protocol))

    def _connect(self) -> Any:
        if self.protocol == "http":
            arguments: dict[str, Any] = dict.fromkeys(self._http_timeouts, self.timeout)
            return self._module.InferenceServerClient(self.url, **arguments, **(self._http_tls() if self.tls else {}))
        # A proxy for the web does not speak gRPC, and must not see what goes to this machine.
        channel = [("grpc.enable_http_proxy", 0)]
        channel += [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        return self._module.InferenceServerClient(
            self.url, channel_args=channel, ssl=self.tls, root_certificates=self.ca_file
        )

    def _http_tls(self) -> dict[str, Any]:
        """What the HTTP client wants to know of TLS."""
        raise NotImplementedError

    @property
    def _call_options(self) -> dict[str, Any]:
        # A new dict each time: the HTTP client writes into it.
        if self.protocol == "grpc":
            return {"client_timeout": self.timeout, "headers": grpc_headers(self.token)}
        return {"headers": http_headers(self.token)}

    def _tensors(self, contract: Contract, events: Mapping[str, Column], options: Mapping[str, Any]) -> list[Any]:
        """The tensors of a request: event columns, and the options that are not None."""
        types, arrays = contract.inputs | contract.options, dict(convert_events(events, contract.inputs))
        _check_limit(options["top_k"], contract.limit)
        for name, value in options.items():
            if value is None or (name == "top_k" and name not in contract.options):
                continue
            if name not in contract.options:
                raise UserError(f"the model at {self.url} takes no {name}: export it again with this version")
            values = [value] if name in ("top_k", "exclude_seen") else value
            # Of nothing nothing is struck; but nothing to choose from is a mistake.
            if len(values) or name != "excluded":
                arrays[name] = convert_column(name, values, types[name])
        tensors = []
        for name, array in arrays.items():
            tensor = self._module.InferInput(name, list(array.shape), types[name])
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        return tensors

    def _answer(self, reply: Any, top_k: int | None) -> Recommendations:
        outputs = {name: reply.as_numpy(name) for name in _OUTPUTS}
        missing = [name for name, array in outputs.items() if array is None]
        if missing:
            raise UserError(f"the model at {self.url} does not answer with {missing[0]}: export it again")
        _check_limit(top_k, outputs["item_id"].shape[1])
        return Recommendations(
            _values(outputs["session_id"]),
            _values(outputs["item_id"][:, :top_k]),
            np.asarray(outputs["score"][:, :top_k], dtype=np.float32),
            np.asarray(outputs["unknown_events"], dtype=np.int64),
        )

    def _explain(self, error: Exception) -> UserError:
        """What a call ended with, in one line."""
        from tritonclient.utils import InferenceServerException

        nobody = Unreachable(f"no server answers at {self.url}: start one with 'nextitem serve'")
        late = Unreachable(f"the server at {self.url} did not answer in {self.timeout:g} s")
        secret = f"no TLS with {self.url}: what is there speaks none, or its certificate is not trusted (--ca-file)"
        if self.tls and re.search(r"(?i)certificate|ssl|tls|handshake", f"{type(error).__name__} {error}"):
            return Unreachable(secret)
        if isinstance(error, InferenceServerException):
            status, message = str(error.status() or ""), str(error.message())
            if status == "401" or message.startswith("This protocol is restricted"):
                wrong = "the token is not the server's" if self.token else "the server asks for a token"
                return UserError(f"the server at {self.url} refused: {wrong} (--token-file, or {TOKEN_VARIABLE})")
            # A server that is there may be "unavailable" too, with a full queue for instance.
            if "UNAVAILABLE" in status and re.search(r"connect|resolv", message):
                return nobody
            return (
                late
                if "DEADLINE" in status
                else UserError(f"the server at {self.url} refused: {server_reason(message)}")
            )
        if isinstance(error, TimeoutError):
            return late
        if isinstance(error, OSError):
            return nobody
        # What speaks another protocol ends in the HTTP parser, whose errors have no class in common.
        return UserError(f"what answers at {self.url} does not speak {self.protocol} ({error})")


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that no model can take."""
    top_k = options["top_k"]
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k is {top_k}: ask for at least one item")
    for name in ("excluded", "candidates"):
        if isinstance(options[name], str | bytes):
            raise UserError(f"{name} is one text: give a list of item ids")
    if options["candidates"] is not None and len(options["candidates"]) == 0:
        raise UserError("candidates is empty: give at least one item id, or leave it out")


def _check_limit(top_k: int | None, limit: int | None) -> None:
    if top_k is not None and limit is not None and top_k > limit:
        raise UserError(f"top_k is {top_k}, but the model was exported with {limit}: ask for at most {limit}")


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
