"""What the tests of the edge send, and what answers: events, a body of JSON, and a model that knows a slow session."""

import json

from tritonclient.grpc import service_pb2 as pb

from serving.server import TritonServer
from tests.serving.echo_repository import MODEL, write_echo_repository

EVENTS = {"session_id": [7, 7], "item_id": ["a", "b"], "time": ["t", "t"], "price": [1.0, 2.0]}
KINDS = {"session_id": "INT64", "item_id": "BYTES", "time": "BYTES", "price": "FP64"}
INFER = "/v2/models/nextitem/infer"
# A session of this id is answered late.
SLOW, SLOW_SECONDS = 99, 1.5
SLOW_MODEL = MODEL.replace(
    'sessions = column["session_id"]\n',
    f'sessions = column["session_id"]\n        if {SLOW} in sessions:\n            time.sleep({SLOW_SECONDS})\n',
).replace("import numpy as np\n", "import time\n\nimport numpy as np\n")


def body(session=7, **changes):
    inputs = []
    for name, values in EVENTS.items():
        values = [session] * 2 if name == "session_id" else values
        inputs.append({"name": name, "shape": [2], "datatype": KINDS[name], "data": values} | changes.get(name, {}))
    return json.dumps({"inputs": inputs}).encode()


def calls(stub):
    """Name -> a call of gRPC's administration."""
    return {
        "shared memory": lambda **more: stub.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=8), **more
        ),
        "load": lambda **more: stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="nextitem"), **more),
        "unload": lambda **more: stub.RepositoryModelUnload(
            pb.RepositoryModelUnloadRequest(model_name="nextitem"), **more
        ),
        "index": lambda **more: stub.RepositoryIndex(pb.RepositoryIndexRequest(), **more),
        "log": lambda **more: stub.LogSettings(pb.LogSettingsRequest(), **more),
        "trace": lambda **more: stub.TraceSetting(pb.TraceSettingRequest(), **more),
    }


def slow_repository(folder):
    """A repository of the echo model, which answers the session `SLOW` late."""
    return write_echo_repository(folder / "model_repository", SLOW_MODEL, options=True)


def on_free_ports(repository, **settings):
    """A server on free ports, not yet started."""
    return TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0, **settings)
