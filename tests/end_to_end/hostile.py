"""Requests that no honest client sends: malformed, extreme and hostile, over gRPC and HTTP."""

import json
import struct

import numpy as np
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

COLUMNS = {
    "session_id": "INT64",
    "item_id": "BYTES",
    "time": "BYTES",
    "category": "BYTES",
    "price": "FP64",
    "event_type": "BYTES",
}
OPTIONS = {"top_k": "INT64", "exclude_seen": "BOOL", "excluded": "BYTES", "candidates": "BYTES"}
FORMATS = {"INT64": "q", "FP64": "d", "BOOL": "?", "INT32": "i", "FP32": "f", "UINT8": "B"}
KNOWN = ["sku-00001", "sku-00002", "sku-00100", "category-01", "view", "cart"]
TIMES = ["2025-03-03T10:00:00", "2025-03-03", "1677-09-21T00:12:44", "2262-04-11T23:47:16", "9999-12-31", "0001-01-01"]

text = st.one_of(
    st.sampled_from(KNOWN + TIMES),
    st.sampled_from(["", " ", "\0", "../../etc/passwd", "'; drop table items; --", "{{7*7}}", "%s%n", "NaN", "null"]),
    st.text(max_size=30),
    st.sampled_from(["x" * 1024, "x" * 1025, "é" * 600, "2025-03-03T10:00:00+" + "9" * 50, "1" * 400]),
)
raw_bytes = st.one_of(text.map(lambda value: value.encode("utf-8", "surrogatepass")), st.binary(max_size=20))
whole = st.one_of(st.integers(-3, 30), st.sampled_from([2**63 - 1, -(2**63), 2**31, -1, 0]))
fraction = st.one_of(
    st.floats(width=64, allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -0.0, 5e-324, 1.8e308])
)
VALUES = {"INT64": whole, "FP64": fraction, "BOOL": st.booleans(), "BYTES": raw_bytes}
shapes = st.sampled_from([[], [0], [-1], [1, 1], [2**40], [2**62, 4], [3, -5], [1] * 60])
# Numbers, texts and nestings that two JSON parsers may read in two ways.
odd_json = st.sampled_from(
    [
        "NaN", "-Infinity", "1e999", "-0", "1e5", "1E+2", "0.1e-400", "9" * 400, "9" * 5000, "-9223372036854775809",
        "18446744073709551616", "01", "+1", "0x10", "1.", ".5", "tru", "'x'", '"\\ud800"', '"\\u0000"', '"\x01"',
        "[" * 300 + "]" * 300, "[" * 50_000, "[[1],2]", '{"a":1,"a":2}', "[],[]", "null", "//x", '"\\', "\ufeff1",
    ]
)  # fmt: skip
rarely = st.integers(0, 11).map(lambda number: number == 0)


@st.composite
def tensors(draw):
    """Columns and options, most of them as they should be: what is wrong everywhere is refused at the first check."""
    events = draw(st.sampled_from([1, 1, 2, 3, 5, 20, 0]))
    found = []
    for name, kind in (COLUMNS | OPTIONS).items():
        option = name in OPTIONS
        if (option and not draw(rarely)) or (not option and draw(rarely) and draw(rarely)):
            continue
        count = draw(st.integers(0, 4)) if option else events
        strategy = st.sampled_from(TIMES).map(str.encode) if name == "time" and not draw(rarely) else VALUES[kind]
        values = [draw(strategy) for _ in range(min(count, 3))]
        values = (values * count)[:count] if values else []
        if name == "session_id" and not draw(rarely):
            values = [draw(st.integers(0, 2)) for _ in range(count)]
        found.append({"name": name, "datatype": kind, "shape": [count], "values": values})
    if draw(rarely):
        one = draw(st.sampled_from(found)) if found else {}
        one |= draw(
            st.sampled_from(
                [
                    {"datatype": "FP16"},
                    {"datatype": "STRING"},
                    {"datatype": ""},
                    {"name": "no such column"},
                    {"name": ""},
                    {"name": "x" * 5000},
                ]
            )
        )
    if draw(rarely) and found:
        draw(st.sampled_from(found))["shape"] = draw(shapes)
    if draw(rarely) and found:
        found.append(dict(found[0]))
    return found


def packed(tensor):
    """Values as Triton's binary format has them."""
    if tensor["values"] and isinstance(tensor["values"][0], bytes):
        return b"".join(struct.pack("<I", len(value)) + value for value in tensor["values"])
    kind = next((FORMATS[kind] for kind in (tensor["datatype"],) if kind in FORMATS), "q")
    try:
        return struct.pack(f"<{len(tensor['values'])}{kind}", *tensor["values"])
    except struct.error:
        return np.array(tensor["values"]).tobytes()


@st.composite
def grpc_requests(draw):
    request = service_pb2.ModelInferRequest(model_name="nextitem")
    for tensor in draw(tensors()):
        part = request.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        if draw(rarely) and draw(rarely):
            # The other way to send values, which must not be mixed with raw bytes.
            part.contents.int64_contents.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)))
            part.contents.bytes_contents.extend(draw(st.lists(raw_bytes, max_size=3)))
        raw = packed(tensor)
        if draw(rarely):
            raw = draw(st.sampled_from([raw[:-1], raw + b"\xff" * 3, b"\xff" * 8, b"", raw * 2]))
        request.raw_input_contents.append(raw)
        if draw(rarely) and draw(rarely):
            part.parameters["shared_memory_region"].string_param = "/../../dev/mem"
            part.parameters["shared_memory_byte_size"].int64_param = draw(whole)
    if draw(rarely):
        request.model_version = draw(st.sampled_from(["999", "-1", "x", "../1", "1" * 400]))
    if draw(rarely):
        request.id = draw(st.sampled_from(["\n", "x" * 10_000, "\0"]))
    if draw(rarely):
        request.outputs.add(name=draw(st.sampled_from(["item_id", "no such output", ""])))
    if draw(rarely):
        name = draw(st.sampled_from(["sequence_id", "priority", "timeout", "sequence_start", "binary_data_output"]))
        request.parameters[name].int64_param = draw(whole)
    return request


@st.composite
def http_requests(draw):
    """Method, path, headers and body."""
    path, method, headers = "/v2/models/nextitem/infer", "POST", {}
    inputs = []
    for tensor in draw(tensors()):
        values = [
            value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in tensor.pop("values")
        ]
        if draw(rarely) and draw(rarely):
            values = draw(st.sampled_from([[[1]], [None], {"a": 1}, "text", [True, "x", 1.5], [[[]]], 7, [{}] * 3]))
        inputs.append(tensor | {"data": values})
    document, binary = {"inputs": inputs}, b""
    if draw(rarely):
        # The binary form, for one or for all, and with sizes that may lie.
        for tensor in inputs if draw(st.booleans()) else inputs[:1]:
            values = [value.encode() if isinstance(value, str) else value for value in tensor.pop("data")]
            raw = packed(tensor | {"values": values})
            size = draw(st.sampled_from([len(raw)] * 5 + [len(raw) + 1, -1, 2**40, None, True, "8"]))
            tensor["parameters"] = {"binary_data_size": size}
            if draw(rarely):
                tensor["parameters"] |= {"shared_memory_region": "mine", "shared_memory_byte_size": 8}
            binary += raw
    if draw(rarely):
        document |= draw(
            st.sampled_from(
                [
                    {"inputs": {}},
                    {"inputs": None},
                    {"inputs": "x"},
                    {"outputs": [{"name": "no such output"}]},
                    {"outputs": [{"name": "item_id", "parameters": {"classification": 2**40}}]},
                    {"outputs": [{"name": "score", "parameters": {"binary_data": True}}]},
                    {"parameters": {"binary_data_output": True, "timeout": 1}},
                    {"outputs": 3},
                    {"parameters": {"sequence_id": -1, "timeout": 2**70}},
                    {"id": ["x"]},
                    {"id": "x" * 10_000},
                ]
            )
        )
    body = json.dumps(document).encode()
    if binary:
        headers["Inference-Header-Content-Length"] = str(len(body))
        body += binary
    if draw(rarely):
        # One value, key or mark of the text is replaced.
        found = draw(st.sampled_from([b"7", b"1", b'"session_id"', b"[", b":", b"data", b"shape", b"}"]))
        body = body.replace(found, draw(odd_json).encode("utf-8", "surrogatepass"), 1)
    if draw(rarely):
        body = draw(
            st.sampled_from(
                [
                    body[: len(body) // 2],
                    b"",
                    b"{}",
                    b"[]",
                    b"null",
                    b"\xff\xfe" + body,
                    b"[" * 500,
                    body + b"}}",
                    b"0" * 3000,
                ]
            )
        )
    if draw(rarely):
        size = draw(st.sampled_from(["0", "-1", str(2**63), "x", str(len(body) + 7), str(len(body) // 2)]))
        headers["Inference-Header-Content-Length"] = size
    if draw(rarely):
        headers["Content-Encoding"] = draw(st.sampled_from(["gzip", "deflate", "br", "x" * 3000]))
    if draw(rarely):
        path = draw(
            st.sampled_from(
                [
                    "/v2/models/nextitem/versions/999/infer",
                    "/v2/models/nextitem/versions/x/infer",
                    "/v2/models/%2e%2e/infer",
                    "/v2/models/" + "x" * 3000 + "/infer",
                    "/v2/repository/models/nextitem/unload",
                    "/v2/repository/models/nextitem/load",
                    "/v2/systemsharedmemory/region/mine/register",
                    "/v2/nowhere",
                ]
            )
        )
    if draw(rarely):
        method = draw(st.sampled_from(["GET", "PUT", "DELETE", "HEAD", "PATCH"]))
    return method, path, headers, body


@st.composite
def raw_http(draw):
    """Bytes as no HTTP client writes them: heads that lie, chunks that do not end, requests in a row."""
    sent = b""
    for _ in range(draw(st.integers(1, 3))):
        method, path, headers, body = draw(http_requests())
        first = f"{method} {path} HTTP/1.1"
        lines = ["Host: x", *(f"{name}: {value}" for name, value in headers.items())]
        if draw(st.booleans()):
            lines.append(f"Content-Length: {len(body) + draw(st.sampled_from([0] * 9 + [-1, 1, 10**9]))}")
        else:
            lines.append("Transfer-Encoding: chunked")
            cut = draw(st.integers(0, len(body)))
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:cut], body[cut:]) if part)
            body += draw(st.sampled_from([b"0\r\n\r\n"] * 5 + [b"0\r\nA: b\r\n\r\n", b"", b"-1\r\n", b"f" * 20]))
        if draw(rarely):
            lines.append(
                draw(
                    st.sampled_from(
                        [
                            "Content-Length: 5",
                            "Content-Length: +5",
                            "Transfer-Encoding: gzip, chunked",
                            "Transfer-Encoding : chunked",
                            "Host: y",
                            " folded: yes",
                            "no colon",
                            "\0: \0",
                            "Expect: 100-continue",
                            "Connection: close, upgrade",
                            "Upgrade: h2c",
                            "X: " + "y" * 20_000,
                        ]
                    )
                )
            )
        if draw(rarely):
            first = draw(
                st.sampled_from(["", "GET", f"{method}  {path} HTTP/1.1", f"{method} {path} HTTP/9.9", "\r\n"])
            )
        ending = draw(st.sampled_from(["\r\n"] * 9 + ["\n", "\r"]))
        sent += (ending.join([first, *lines]) + ending * 2).encode("utf-8", "replace") + body
    return draw(st.sampled_from([sent] * 9 + [sent[: len(sent) // 2], sent[::-1]]))
