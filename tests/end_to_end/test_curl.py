"""The README's curl command, as it stands and with real curl, gets what the client gets."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from serving.client import NextItemClient

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
OPTIONS = ("top_k", "exclude_seen", "excluded", "candidates")

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl: apt-get install curl")


def command():
    (text,) = (block for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL) if "curl" in block)
    assert "127.0.0.1:8000" in text
    return text


def curl(text, server):
    text = text.replace("127.0.0.1:8000", server.addresses["http"])
    done = subprocess.run(["bash", "-euc", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_curl_gets_what_the_client_gets(server):
    outputs = {output["name"]: output for output in curl(command(), server)["outputs"]}
    sent = json.loads(re.search(r"-d '(.*)'", command(), flags=re.DOTALL)[1])["inputs"]
    given = {entry["name"]: entry["data"] for entry in sent}
    options = {name: given.pop(name) for name in OPTIONS if name in given}
    for name in ("top_k", "exclude_seen"):
        if name in options:
            (options[name],) = options[name]
    with NextItemClient(server.addresses["grpc"]) as client:
        answer = client.recommend(given, **options)
    assert outputs["session_id"]["data"] == answer.session_id
    assert outputs["item_id"]["shape"] == [1, len(answer.item_id[0])]
    assert outputs["item_id"]["data"] == answer.item_id[0]
    assert outputs["score"]["data"] == pytest.approx(answer.score[0].tolist(), rel=1e-4)
    assert outputs["unknown_events"]["data"] == answer.unknown_events.tolist()
    if "top_k" in options:
        assert len(answer.item_id[0]) == options["top_k"]


def test_curl_is_told_what_is_wrong(server):
    told = curl(command().replace('"2025-04-01T10:02:30"', '"soon"'), server)
    assert "'time' in event 1 is b'soon': send an ISO 8601 time" in told["error"]
