"""A request for inference in KServe's JSON and binary format: checked strictly, then written anew.

What a client sends is believed in nothing: the values are counted, and only then does the shape count. Values that
came as JSON go on in the binary form, so that Triton parses no more JSON than the few names and sizes written here.
"""

from __future__ import annotations

import json
from array import array
from itertools import chain
from math import prod
from typing import Any, NoReturn

from serving.edge.refused import Refused

Part = bytes | memoryview

# Bytes of one value; BYTES is text with its own length in front.
SIZES = {"BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2, "BF16": 2}
SIZES |= {"INT32": 4, "UINT32": 4, "FP32": 4, "INT64": 8, "UINT64": 8, "FP64": 8}
_LENGTH = 4
# Python's array codes; the half floats have none, and nobody sends them as JSON.
_CODES = {"BOOL": "b", "INT8": "b", "UINT8": "B", "INT16": "h", "UINT16": "H", "INT32": "i", "UINT32": "I"}
_CODES |= {"INT64": "q", "UINT64": "Q", "FP32": "f", "FP64": "d"}
_KINDS: dict[str, set[type]] = {name: {int} for name in _CODES}
_KINDS |= {"BOOL": {bool}, "FP32": {int, float}, "FP64": {int, float}}

MAX_TENSORS = 256
MAX_OBJECTS = 4 * MAX_TENSORS
MAX_RANK = 8
MAX_DIMENSION = 2**31 - 1
MAX_NAME = 256
# A comma stands between two values, and an honest value takes some bytes. What is parsed needs up to 80 bytes of
# memory a value, whatever its text, so that this bounds the memory too.
BYTES_A_VALUE = 16

_REQUEST = {"id", "inputs", "outputs", "parameters"}
_INPUT = {"name", "datatype", "shape", "data", "parameters"}
_OUTPUT = {"name", "parameters"}
# Of a request's parameters, those that pass, with their types. Priority and timeout are for Triton's own batcher.
_PARAMETERS: dict[str, type] = {"binary_data_output": bool, "priority": int, "timeout": int}
# What people call Python's types.
_JSON = {"str": "text", "NoneType": "null", "dict": "JSON object", "float": "fraction", "int": "number"}
_write = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def rewrite(body: bytes, header_length: int | None, max_bytes: int) -> tuple[bytes, list[Part]]:
    """Check a request, and write it anew.

    Parameters
    ----------
    body : bytes
        As it came.
    header_length : int, optional
        How many of the first bytes are JSON (the header ``Inference-Header-Content-Length``); the rest is binary
        values. None when all is JSON.
    max_bytes : int
        The limit on bodies, by which the number of values is limited as well.

    Returns
    -------
    (bytes, list of bytes or memoryview)
        The JSON to send, and the values of all tensors one after another in the binary form.

    Raises
    ------
    Refused
        With the status 400 or 413, when anything at all is not as it should be.
    """
    text, binary = body, memoryview(b"")
    if header_length is not None:
        if not 0 < header_length <= len(body):
            _refuse(f"Inference-Header-Content-Length is {header_length}, but the body has {len(body)} bytes")
        text, binary = body[:header_length], memoryview(body)[header_length:]
    if text.count(b",") > max(1000, max_bytes // BYTES_A_VALUE):
        raise Refused(413, "the request holds too many values: send several smaller ones, or the binary format")
    request = parse(text)
    if type(request) is not dict:
        _refuse("the request is no JSON object")
    _only(request, _REQUEST, "the request")
    written: dict[str, Any] = {}
    if "id" in request:
        written["id"] = _text(request["id"], "the request's id", empty=True)
    parts: list[Part] = []
    written["inputs"] = _inputs(request.get("inputs"), binary, parts)
    if "outputs" in request:
        written["outputs"] = _outputs(request["outputs"])
    if "parameters" in request:
        written["parameters"] = _parameters(request["parameters"])
    return _write(written).encode("ascii"), parts


def parse(text: bytes) -> Any:
    """Parse JSON without trust: depth, objects, doubled keys and odd numbers are limited or refused."""
    left = MAX_OBJECTS

    def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal left
        left -= 1
        if left < 0:
            _refuse("the request holds too many objects")
        found = dict(pairs)
        if len(found) < len(pairs):
            _refuse("an object of the request has a key twice")
        return found

    try:
        decoded = text.decode("utf-8")
        return json.JSONDecoder(object_pairs_hook=to_object, parse_constant=_no_number).decode(decoded)
    except UnicodeDecodeError:
        _refuse("the request is no UTF-8")
    except RecursionError:
        _refuse("the request is nested too deep")
    except ValueError as error:
        # Python's words on a number of thousands of digits are about itself.
        reason = f"{error.msg} at {error.pos}" if isinstance(error, json.JSONDecodeError) else "a number is too long"
        _refuse(f"the request is no JSON: {reason}")


def _refuse(message: str) -> NoReturn:
    raise Refused(400, message)


def _no_number(name: str) -> NoReturn:
    _refuse(f"{name} is no JSON number: send such values in the binary format")


def _only(found: dict[str, Any], known: set[str], where: str) -> None:
    if not found.keys() <= known:
        _refuse(f"{where} has an unknown key {_shown(min(found.keys() - known))}")


def _shown(value: Any) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:56]}...{shown[-1]}"


def _text(value: Any, where: str, empty: bool = False) -> str:
    if type(value) is not str or len(value) > MAX_NAME or not (value.isprintable() and (value or empty)):
        _refuse(f"{where} is {_shown(value)}: send a text of 1 to {MAX_NAME} printable characters")
    return value


def _listed(value: Any, where: str) -> list[Any]:
    if type(value) is not list or len(value) > MAX_TENSORS or not all(type(entry) is dict for entry in value):
        _refuse(f"{where} must be a list of objects, {MAX_TENSORS} at most")
    return value


def _inputs(value: Any, binary: memoryview, parts: list[Part]) -> list[dict[str, Any]]:
    entries = _listed(value, "'inputs'")
    written, names, used = [], set(), 0
    for entry in entries:
        name = _text(entry.get("name"), "the name of an input")
        if name in names:
            _refuse(f"the input {_shown(name)} is sent twice")
        names.add(name)
        _only(entry, _INPUT, f"the input {_shown(name)}")
        kind, shape = entry.get("datatype"), _shape(entry.get("shape"), name)
        if type(kind) is not str or (kind not in SIZES and kind != "BYTES"):
            _refuse(f"the input {_shown(name)} has the data type {_shown(kind)}: send one of Triton's")
        if "data" in entry:
            if "parameters" in entry:
                _refuse(f"the input {_shown(name)} has both data and parameters")
            part: Part = _packed(entry["data"], kind, prod(shape), name)
        else:
            size = _binary_size(entry, kind, prod(shape), name)
            part = binary[used : used + size]
            if len(part) < size:
                _refuse(f"the input {_shown(name)} says {size} bytes, but the body ends after {len(part)} of them")
            used += size
        parts.append(part)
        size = part.nbytes if isinstance(part, memoryview) else len(part)
        written.append({"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": size}})
    if used < len(binary):
        _refuse(f"the body has {len(binary) - used} bytes more than its inputs say")
    return written


def _shape(value: Any, name: str) -> list[int]:
    good = type(value) is list and len(value) <= MAX_RANK
    if not (good and all(type(size) is int and 0 <= size <= MAX_DIMENSION for size in value)):
        _refuse(f"the input {_shown(name)} has the shape {_shown(value)}: send at most {MAX_RANK} whole numbers from 0")
    return list(value)


def _binary_size(entry: dict[str, Any], kind: str, count: int, name: str) -> int:
    parameters = entry.get("parameters")
    if type(parameters) is not dict or parameters.keys() != {"binary_data_size"}:
        _refuse(f"the input {_shown(name)} needs either data or, alone, the parameter binary_data_size")
    size = parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        _refuse(f"the input {_shown(name)} has the binary_data_size {_shown(size)}: send a whole number from 0")
    if kind == "BYTES" and size < count * _LENGTH:
        _refuse(f"the input {_shown(name)} has {size} bytes, too few for {count} texts with their lengths")
    if kind != "BYTES" and size != count * SIZES[kind]:
        _refuse(f"the input {_shown(name)} has {size} bytes, but {count} values of {kind} take {count * SIZES[kind]}")
    return size


def _packed(data: Any, kind: str, count: int, name: str) -> bytes:
    """Values of a JSON list, flat or nested, as their bytes."""
    if type(data) is not list:
        _refuse(f"the data of the input {_shown(name)} is no list")
    kinds = set(map(type, data))
    for _ in range(MAX_RANK):
        if kinds != {list}:
            break
        data = list(chain.from_iterable(data))
        kinds = set(map(type, data))
    if len(data) != count:
        _refuse(f"the input {_shown(name)} has {len(data)} values, but its shape says {count}")
    if kind == "BYTES":
        return _texts(data, kinds, name)
    if kind not in _CODES:
        _refuse(f"the input {_shown(name)} is {kind}, which has no JSON form: send it in the binary format")
    if not kinds <= _KINDS[kind]:
        wrong = min(found.__name__ for found in kinds - _KINDS[kind])
        _refuse(f"the input {_shown(name)} holds a {_JSON.get(wrong, wrong)}, which is no {kind}")
    try:
        packed = array(_CODES[kind], data)
    except OverflowError:
        _refuse(f"the input {_shown(name)} holds a number that {kind} cannot hold")
    if kind in ("FP32", "FP64") and not _finite(packed):
        _refuse(f"the input {_shown(name)} holds a number that {kind} cannot hold")
    return packed.tobytes()


def _finite(values: array[Any]) -> bool:
    # A sum is infinite or not a number when one of its parts is; it may also overflow, so look again.
    total = sum(values)
    return total - total == 0 or all(value - value == 0 for value in values)


def _texts(data: list[Any], kinds: set[type], name: str) -> bytes:
    if not kinds <= {str}:
        wrong = min(found.__name__ for found in kinds - {str})
        _refuse(f"the input {_shown(name)} holds a {_JSON.get(wrong, wrong)}, which is no text")
    try:
        encoded: list[bytes] = [text.encode() for text in data]
    except UnicodeEncodeError:
        _refuse(f"the input {_shown(name)} holds half of a surrogate pair, which is no text")
    return b"".join([part for text in encoded for part in (len(text).to_bytes(_LENGTH, "little"), text)])


def _outputs(value: Any) -> list[dict[str, Any]]:
    written = []
    for entry in _listed(value, "'outputs'"):
        name = _text(entry.get("name"), "the name of an output")
        _only(entry, _OUTPUT, f"the output {_shown(name)}")
        asked: dict[str, Any] = {"name": name}
        if "parameters" in entry:
            asked["parameters"] = _checked(entry["parameters"], {"binary_data": bool}, f"the output {_shown(name)}")
        written.append(asked)
    return written


def _parameters(value: Any) -> dict[str, Any]:
    return _checked(value, _PARAMETERS, "the request")


def _checked(value: Any, types: dict[str, type], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(f"the parameters of {where} are no JSON object")
    found: Any
    for name, found in value.items():
        if name not in types:
            _refuse(f"{where} has the parameter {_shown(name)}, which is not for clients: leave it out")
        if {type(found)} != {types[name]} or not 0 <= found <= MAX_DIMENSION:
            _refuse(f"{where} has {_shown(found)} as {name}: send a {types[name].__name__}")
    return dict(value)
