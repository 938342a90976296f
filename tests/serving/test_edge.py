"""What the edge lets through, by hand-made requests: heads, paths, bodies, tensors."""

import json
import struct

import pytest

from serving.edge.body import Body, Budget
from serving.edge.head import parse_head
from serving.edge.inference import rewrite
from serving.edge.refused import Refused
from serving.edge.routes import Route, find_route
from serving.edge.settings import EdgeSettings

LIMIT = 1 << 20


def refusal(function, *arguments):
    with pytest.raises(Refused) as caught:
        function(*arguments)
    assert "\n" not in caught.value.message
    return caught.value.status, caught.value.message


def tensor(name="x", kind="INT64", shape=(2,), **rest):
    return {"name": name, "datatype": kind, "shape": list(shape)} | (rest or {"data": [1, 2]})


def request(*inputs, **rest):
    return json.dumps({"inputs": list(inputs), **rest}).encode()


def written(body, header_length=None):
    header, parts = rewrite(body, header_length, LIMIT)
    return json.loads(header), b"".join(parts)


def test_json_values_go_on_as_bytes():
    body = request(
        tensor("session", data=[7, -1]),
        tensor("item", "BYTES", (2, 1), data=[["é"], ["ab"]]),
        tensor("price", "FP64", data=[1, 2.5]),
        tensor("seen", "BOOL", data=[True, False]),
        tensor("small", "UINT8", (3,), data=[0, 7, 255]),
        id="mine",
        outputs=[{"name": "item_id"}, {"name": "score", "parameters": {"binary_data": True}}],
        parameters={"binary_data_output": False, "timeout": 5},
    )
    header, values = written(body)
    sizes = [entry["parameters"] for entry in header["inputs"]]
    assert sizes == [{"binary_data_size": size} for size in (16, 12, 16, 2, 3)]
    assert [entry["shape"] for entry in header["inputs"]] == [[2], [2, 1], [2], [2], [3]]
    assert values == (
        struct.pack("<qq", 7, -1)
        + b"\x02\0\0\0\xc3\xa9\x02\0\0\0ab"
        + struct.pack("<dd", 1.0, 2.5)
        + b"\x01\0"
        + b"\x00\x07\xff"
    )
    assert header["id"] == "mine"
    assert header["outputs"] == [{"name": "item_id"}, {"name": "score", "parameters": {"binary_data": True}}]
    assert header["parameters"] == {"binary_data_output": False, "timeout": 5}
    assert header["inputs"][1] == {
        "name": "item",
        "datatype": "BYTES",
        "shape": [2, 1],
        "parameters": {"binary_data_size": 12},
    }


def test_binary_values_stay_as_they_are_also_beside_json():
    raw = struct.pack("<dd", 1.0, float("nan"))
    head = request(
        tensor("price", "FP64", parameters={"binary_data_size": 16}),
        tensor("session", data=[7, 7]),
        tensor("item", "BYTES", (1,), parameters={"binary_data_size": 6}),
    )
    header, values = written(head + raw + b"\x02\0\0\0ab", len(head))
    assert [entry["name"] for entry in header["inputs"]] == ["price", "session", "item"]
    assert values == raw + struct.pack("<qq", 7, 7) + b"\x02\0\0\0ab"


def test_nothing_is_something():
    head = request(tensor("x", shape=[0], parameters={"binary_data_size": 0}))
    assert written(head, len(head))[1] == b""
    assert written(request(tensor("x", shape=[0], data=[])))[1] == b""
    assert written(request())[0] == {"inputs": []}
    # A number without a dimension has one value.
    assert written(request(tensor("x", shape=[], data=[3])))[1] == struct.pack("<q", 3)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no JSON"),
        (b"{}x", "no JSON: Extra data"),
        (b"\xff", "no UTF-8"),
        (b"\xef\xbb\xbf{}", "no JSON"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b"{}", "'inputs' must be a list"),
        (b'{"inputs": {}}', "'inputs' must be a list"),
        (b'{"inputs": [1]}', "'inputs' must be a list of objects"),
        (b'{"inputs": [], "inputs": []}', "a key twice"),
        (b'{"inputs": [{"name": "x", "name": "y"}]}', "a key twice"),
        (b'{"inputs": [], "more": 1}', "unknown key 'more'"),
        (b"[" * 500_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"inputs": [' + b"{}," * 2000 + b"{}]}", "too many objects"),
        (b'{"inputs": [' + b"1" * 5000 + b"]}", "a number is too long"),
        (b'{"inputs": NaN}', "NaN is no JSON number"),
        (b'{"inputs": -Infinity}', "-Infinity is no JSON number"),
        (request(tensor(data=[1, 2], shape=[2**40])), "shape"),
        (request(tensor(data=[1, 2], shape=[2**30])), "2 values, but its shape says 1073741824"),
        (request(tensor(data=[1, 2], shape=[-2])), "whole numbers from 0"),
        (request(tensor(data=[1, 2], shape=[2.0])), "whole numbers from 0"),
        (request(tensor(data=[1, 2], shape=[True, 2])), "whole numbers from 0"),
        (request(tensor(data=[1, 2], shape=[1] * 8 + [2])), "at most 8 whole numbers"),
        (request({"name": "x", "datatype": "INT64", "data": [1]}), "shape None"),
        (request(tensor(data=[1, 2, 3])), "3 values, but its shape says 2"),
        (request(tensor(data=[[1, 2], [3]])), "3 values, but its shape says 2"),
        (request(tensor(data=[[1], 2])), "holds a list, which is no INT64"),
        (request(tensor(data=[1, True])), "holds a bool, which is no INT64"),
        (request(tensor(data=[1, 2.5])), "holds a fraction, which is no INT64"),
        (request(tensor(data=[1, None])), "holds a null"),
        (request(tensor(data=[1, 2**63])), "a number that INT64 cannot hold"),
        (request(tensor(data=["a", 1], kind="BYTES")), "holds a number, which is no text"),
        (request(tensor(data=["\ud800", "a"], kind="BYTES")), "half of a surrogate pair"),
        (b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1e999]}]}', "FP64 cannot hold"),
        (request(tensor(data=[1e300, 1], kind="FP32")), "FP32 cannot hold"),
        (request(tensor(data=[10**400, 1], kind="FP64")), "FP64 cannot hold"),
        (request(tensor(data=[1, 2], kind="FP16")), "no JSON form"),
        (request(tensor(data=[1, 2], kind="STRING")), "data type 'STRING'"),
        (request(tensor(data=[1, 2], kind=["INT64"])), "data type"),
        (request(tensor(data={"a": 1})), "is no list"),
        (request(tensor(data=[1, 2]), tensor(data=[1, 2])), "sent twice"),
        (request(tensor("", data=[1, 2])), "the name of an input is ''"),
        (request(tensor("x" * 300, data=[1, 2])), "256 printable"),
        (request(tensor("a\nb", data=[1, 2])), "printable"),
        (request({"datatype": "INT64", "shape": [1], "data": [1]}), "the name of an input is None"),
        (request(tensor(data=[1, 2], more=1)), "unknown key 'more'"),
        (request(tensor(data=[1, 2], parameters={})), "both data and parameters"),
        (request(tensor(parameters={"binary_data_size": 16})), "says 16 bytes, but the body ends after 0"),
        (request(tensor(parameters={"shared_memory_region": "x", "shared_memory_byte_size": 16})), "needs either data"),
        (request(tensor(parameters={"binary_data_size": True})), "whole number from 0"),
        (request(tensor(parameters={"binary_data_size": -1})), "whole number from 0"),
        (request(tensor(parameters={"binary_data_size": 15})), "has 15 bytes, but 2 values of INT64 take 16"),
        (request(tensor(kind="BYTES", parameters={"binary_data_size": 7})), "has 7 bytes, too few for 2 texts"),
        (request(outputs=[{"name": "a", "parameters": {"classification": 3}}]), "parameter 'classification'"),
        (request(outputs=[{"name": "a", "parameters": {"binary_data": 1}}]), "send a bool"),
        (request(outputs=[{"name": "a", "data": []}]), "unknown key 'data'"),
        (request(outputs=3), "'outputs' must be a list"),
        (request(parameters=[]), "no JSON object"),
        (request(parameters={"sequence_id": 1}), "parameter 'sequence_id', which is not for clients"),
        (request(parameters={"timeout": 2**70}), "as timeout"),
        (request(parameters={"priority": -1}), "as priority"),
        (request(id=["x"]), "the request's id is"),
        (request(id="\n"), "the request's id is"),
    ],
)
def test_refused(body, reason):
    status, message = refusal(rewrite, body, None, LIMIT)
    assert status == 400
    assert reason in message
    assert len(message) < 300


def test_what_is_not_there_is_not_read():
    head = request(tensor(parameters={"binary_data_size": 16}))
    for length in (0, len(head) + 17):
        assert "but the body has" in refusal(rewrite, head + b"x" * 16, length, LIMIT)[1]
    assert "ends after 15" in refusal(rewrite, head + b"x" * 15, len(head), LIMIT)[1]
    assert "1 bytes more" in refusal(rewrite, head + b"x" * 17, len(head), LIMIT)[1]


def test_many_values_are_refused_before_they_are_parsed():
    body = request(tensor(shape=[70_000], data=[1] * 70_000))
    assert len(body) < LIMIT
    assert refusal(rewrite, body, None, LIMIT)[0] == 413
    assert rewrite(body, None, 2 * LIMIT)


def test_head():
    head = parse_head(
        b"POST /v2/models/x/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nAUTHORIZATION: bearer  abc \r\n"
        b"Inference-Header-Content-Length:7\r\nExpect: 100-Continue\r\nContent-Encoding: GZIP\r\nX: y\r\nX: z"
    )
    assert (head.method, head.path, head.length, head.keep, head.waits) == (
        "POST",
        "/v2/models/x/infer",
        12,
        True,
        True,
    )
    assert (head.token, head.header_length, head.encoding) == (b"abc", 7, b"gzip")
    assert parse_head(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked").length is None
    assert not parse_head(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close").keep
    assert not parse_head(b"GET / HTTP/1.0").keep
    assert parse_head(b"GET / HTTP/1.0\r\nConnection: keep-alive").keep


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"", 400),
        (b"GET /", 400),
        (b"get / HTTP/1.1\r\nHost: a", 400),
        (b"GET  / HTTP/1.1\r\nHost: a", 400),
        (b"GET / HTTP/2.0\r\nHost: a", 400),
        (b"GET http://a/ HTTP/1.1\r\nHost: a", 400),
        (b"GET / HTTP/1.1", 400),
        (b"GET / HTTP/1.1\nHost: a", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: y", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : y", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nInference-Header-Content-Length: -1", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: more", 417),
        (b"GET / HTTP/1.1\r\nHost: a" + b"\r\nX: y" * 64, 431),
    ],
)
def test_heads_that_can_be_read_in_two_ways(text, status):
    assert refusal(parse_head, text)[0] == status


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v2", Route.READ),
        ("GET", "/v2/health/live", Route.HEALTH),
        ("GET", "/v2/health/ready", Route.HEALTH),
        ("GET", "/v2/models/stats", Route.READ),
        ("GET", "/v2/models/nextitem", Route.READ),
        ("GET", "/v2/models/nextitem/ready", Route.READ),
        ("GET", "/v2/models/next.item-2_x/versions/12/config", Route.READ),
        ("GET", "/v2/models/nextitem/stats", Route.READ),
        ("POST", "/v2/models/nextitem/infer", Route.INFER),
        ("POST", "/v2/models/nextitem/versions/3/infer", Route.INFER),
        ("POST", "/v2/repository/index", Route.INDEX),
        ("GET", "/v2/models/nextitem/infer", 405),
        ("POST", "/v2/models/nextitem/ready", 405),
        ("DELETE", "/v2", 405),
        ("GET", "/", 404),
        ("GET", "/v2/models/a/../b/ready", 404),
        ("GET", "/v2/models/../ready", 404),
        ("GET", "/v2/models/%2e%2e/ready", 404),
        ("GET", "/v2/models/nextitem?x=1", 404),
        ("GET", "/v2/models/nextitem/versions/x", 404),
        ("POST", "/v2/models/nextitem/generate", 404),
        ("GET", "/v2/models/nextitem_ranker/ready", Route.READ),
        ("POST", "/v2/models/nextitem_ranker/infer", 404),
        ("POST", "/v2/models/nextitem_ranker/versions/1/infer", 404),
        ("POST", "/v2/models/nextitem/trace/setting", 404),
        ("POST", "/v2/repository/models/nextitem/load", 404),
        ("POST", "/v2/systemsharedmemory/region/x/register", 404),
        ("GET", "/v2/logging", 404),
        ("GET", "/v2/trace/setting", 404),
        ("GET", "/metrics", 404),
    ],
)
def test_routes(method, path, expected):
    if isinstance(expected, Route):
        assert find_route(method, path) is expected
    else:
        assert refusal(find_route, method, path)[0] == expected


CHUNKS = b"4\r\nwiki\r\n6;x=y\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nA: b\r\n\r\n"


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_chunks_arrive_in_any_pieces(step):
    budget = Budget(100)
    body = Body(None, 50, budget)
    sent = CHUNKS + b"GET"
    behind = None
    for at in range(0, len(sent), step):
        if behind is None:
            behind = body.feed(sent[at : at + step])
            used = at + step
    assert body.content() == b"wikipedia in \r\n\r\nchunks."
    assert behind + sent[used:] == b"GET"
    assert budget.left == 76
    body.close()
    assert budget.left == 100


def test_bodies_of_known_length():
    body = Body(5, 5, Budget(5))
    assert body.feed(b"ab") is None
    assert body.feed(b"cdeGET") == b"GET"
    assert body.content() == b"abcde"
    assert Body(0, 5, Budget(0)).feed(b"GET") == b"GET"


@pytest.mark.parametrize(
    ("chunks", "status"),
    [
        (b"x\r\n", 400),
        (b"-1\r\n", 400),
        (b"123456789\r\n", 400),
        (b"1\r\nab\r\n", 400),
        (b"1" * 300, 400),
        (b"33\r\n", 413),
        (b"30\r\n" + b"x" * 48 + b"\r\n5\r\n", 413),
        (b"0\r\n" + b"a: b\r\n" * 300, 431),
    ],
)
def test_chunks_that_are_none(chunks, status):
    assert refusal(Body(None, 50, Budget(100)).feed, chunks)[0] == status


def test_too_large_is_refused_before_it_arrives_and_together():
    assert refusal(Body, 51, 50, Budget(100))[0] == 413
    budget = Budget(60)
    first, second = Body(50, 50, budget), Body(50, 50, budget)
    first.feed(b"x" * 40)
    assert refusal(second.feed, b"x" * 40)[0] == 503
    second.close()
    first.close()
    assert budget.left == 60


def test_settings_survive_the_pipe_and_hide_the_token():
    settings = EdgeSettings("/dev/shm/x", port=5, token="secret-secret-secret", max_body_bytes=10)
    assert EdgeSettings.from_line(settings.to_line()) == settings
    assert settings.budget == 80
    assert "secret" not in repr(settings)
