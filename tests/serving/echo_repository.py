"""A tiny model repository that keeps the client contract with an answer that can be worked out by hand.

`write_echo_repository` writes one Python-backend model named ``nextitem`` that imports numpy only, so a real
tritonserver is ready with it in a few seconds. For a session whose last item is ``x`` and whose prices
add up to ``p`` the answer is the items ``x+1 … x+5`` with scores ``p / 1 … p / 5``; items that begin with ``?``
count as unknown.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

TOP_K = 5
INPUTS = {"session_id": "INT64", "item_id": "STRING", "time": "STRING", "price": "FP64"}
OUTPUTS = {"session_id": "INT64", "item_id": "STRING", "score": "FP32", "unknown_events": "INT64"}

MODEL = textwrap.dedent("""\
    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            return [self._answer(request) for request in requests]

        def _answer(self, request):
            column = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            sessions = column["session_id"]
            if sessions.size == 0:
                return pb_utils.InferenceResponse(error=pb_utils.TritonError("the request holds no events"))
            order = list(dict.fromkeys(sessions.tolist()))
            items, scores, unknown = [], [], []
            for session in order:
                rows = np.flatnonzero(sessions == session)
                names = [column["item_id"][row].decode() for row in rows]
                if "" in names:
                    reason = f"column 'item_id' is empty in row {rows[names.index('')] + 1}"
                    return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason))
                items.append([f"{names[-1]}+{rank}" for rank in range(1, TOP_K + 1)])
                scores.append([column["price"][rows].sum() / rank for rank in range(1, TOP_K + 1)])
                unknown.append(sum(name.startswith("?") for name in names))
            return pb_utils.InferenceResponse([
                pb_utils.Tensor("session_id", np.array(order, dtype=np.int64)),
                pb_utils.Tensor("item_id", np.array(items, dtype=object)),
                pb_utils.Tensor("score", np.array(scores, dtype=np.float32)),
                pb_utils.Tensor("unknown_events", np.array(unknown, dtype=np.int64)),
            ])
""")


def _tensors(kind: str, columns: dict[str, str], ranked: tuple[str, ...] = ()) -> str:
    entries = (
        f'  {{ name: "{name}" data_type: TYPE_{dtype} dims: [ {"-1, " + str(TOP_K) if name in ranked else -1} ] }}'
        for name, dtype in columns.items()
    )
    return f"{kind} [\n" + ",\n".join(entries) + "\n]\n"


def write_echo_repository(folder: Path, model_code: str = MODEL) -> Path:
    """Write the repository into `folder` and return it; `model_code` replaces the model's ``model.py``."""
    model = folder / "nextitem"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_text(f"TOP_K = {TOP_K}\n{model_code}", encoding="utf-8")
    contract = _tensors("input", INPUTS) + _tensors("output", OUTPUTS, ranked=("item_id", "score"))
    (model / "config.pbtxt").write_text(f'backend: "python"\nmax_batch_size: 0\n{contract}', encoding="utf-8")
    (folder / "README.md").write_text("Files beside the models are ignored by Triton.\n", encoding="utf-8")
    return folder
