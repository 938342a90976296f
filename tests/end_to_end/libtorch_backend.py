"""A backend named `pytorch` for the tritonserver of these tests, which has none.

It stands in for Triton's own as a Python program that keeps the rules by which that one calls a model: one dictionary
of all inputs, outputs by the number in their names. The repository is served as it was exported; what is not shown is
that the real backend's libtorch runs the file.
"""

import shutil
from pathlib import Path

from serving import binaries

# Asked for so many items it fails, as a model on a machine of its own kind might.
FAILS_AT = 19
_BACKEND = f"""\
import json
from pathlib import Path

import torch
import triton_python_backend_utils as pb


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config

    def initialize(self, args):
        config = json.loads(args["model_config"])
        torch.set_num_threads(int(config["parameters"]["INTRA_OP_THREAD_COUNT"]["string_value"]))
        self.model = torch.jit.load(str(Path(args["model_repository"]) / args["model_version"] / "model.pt"))
        self.inputs = [part["name"] for part in config["input"]]
        self.outputs = [(part["name"], int(part["name"].rpartition("__")[2])) for part in config["output"]]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        try:
            tensors = {{name: pb.get_input_tensor_by_name(request, name).as_numpy().copy() for name in self.inputs}}
            if tensors["top_k"][0] == {FAILS_AT}:
                raise RuntimeError("the machine\\nis on fire")
            with torch.inference_mode():
                found = self.model({{name: torch.from_numpy(values) for name, values in tensors.items()}})
            return pb.InferenceResponse([pb.Tensor(name, found[index].numpy()) for name, index in self.outputs])
        except Exception as error:
            return pb.InferenceResponse(error=pb.TritonError(f"PyTorch execute failure: {{error}}"))
"""


def backends(folder: Path) -> str:
    """The option of tritonserver that names a folder of backends with this one in it."""
    binaries.tritonserver(folder)
    # Triton takes no links out of the folder.
    copied = shutil.copytree(folder / "backends", folder / "copied")
    (copied / "pytorch").mkdir()
    (copied / "pytorch" / "model.py").write_text(_BACKEND)
    return f"--backend-directory={copied}"
