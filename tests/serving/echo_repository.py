"""A tiny model repository that keeps the client contract with an answer that can be worked out by hand.

`write_echo_repository` writes one Python-backend model named ``nextitem`` that imports numpy only, so a real
tritonserver is ready with it in a few seconds. For a session whose last item is ``x`` and whose prices
add up to ``p`` the answer is the items ``x+1 … x+5`` with scores ``p / 1 … p / 5``; items that begin with ``?``
count as unknown. With `options` the model takes what a request may leave out, too: what is struck leaves its place
to the next, and places that nothing fills have an empty id and float32's lowest score.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

TOP_K = 5
INPUTS = {"session_id": "INT64", "item_id": "STRING", "time": "STRING", "price": "FP64"}
OUTPUTS = {"session_id": "INT64", "item_id": "STRING", "score": "FP32", "unknown_events": "INT64"}
OPTIONS = {"top_k": "INT64", "exclude_seen": "BOOL", "excluded": "STRING", "candidates": "STRING"}

MODEL = textwrap.dedent("""\
    import numpy as np
    import triton_python_backend_utils as pb_utils

    LISTS = ("excluded", "candidates")
    LOWEST = np.finfo(np.float32).min


    class TritonPythonModel:
        def execute(self, requests):
            return [self._answer(request) for request in requests]

        def _answer(self, request):
            column = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            sessions = column["session_id"]
            if sessions.size == 0:
                return pb_utils.InferenceResponse(error=pb_utils.TritonError("the request holds no events"))
            order = list(dict.fromkeys(sessions.tolist()))
            k = int(column["top_k"][0]) if "top_k" in column else TOP_K
            if not 1 <= k <= TOP_K:
                reason = f"top_k is {k}: ask for 1 to {TOP_K}"
                return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason))
            chosen = {name: {item.decode() for item in column[name]} for name in LISTS if name in column}
            items, scores, unknown = [], [], []
            for session in order:
                rows = np.flatnonzero(sessions == session)
                names = [column["item_id"][row].decode() for row in rows]
                if "" in names:
                    reason = f"column 'item_id' is empty in row {rows[names.index('')] + 1}"
                    return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason))
                total = column["price"][rows].sum()
                ranked = [(f"{names[-1]}+{rank}", total / rank) for rank in range(1, TOP_K + 1)]
                struck = set(chosen.get("excluded", ()))
                if "exclude_seen" in column and column["exclude_seen"][0]:
                    struck |= set(names)
                ranked = [pair for pair in ranked if pair[0] in chosen.get("candidates", [pair[0]])]
                ranked = [pair for pair in ranked if pair[0] not in struck] + [("", LOWEST)] * k
                items.append([item for item, _ in ranked[:k]])
                scores.append([score for _, score in ranked[:k]])
                unknown.append(sum(name.startswith("?") for name in names))
            return pb_utils.InferenceResponse([
                pb_utils.Tensor("session_id", np.array(order, dtype=np.int64)),
                pb_utils.Tensor("item_id", np.array(items, dtype=object)),
                pb_utils.Tensor("score", np.array(scores, dtype=np.float32)),
                pb_utils.Tensor("unknown_events", np.array(unknown, dtype=np.int64)),
            ])
""")


def _tensors(kind: str, columns: dict[str, str], width: int, options: dict[str, str] | None = None) -> str:
    dims = {name: f"-1, {width}" if kind == "output" and name in ("item_id", "score") else "-1" for name in columns}
    entries = [f'name: "{name}" data_type: TYPE_{dtype} dims: [ {dims[name]} ]' for name, dtype in columns.items()]
    for name, dtype in (options or {}).items():
        length = 1 if name in ("top_k", "exclude_seen") else -1
        entries.append(f'name: "{name}" data_type: TYPE_{dtype} dims: [ {length} ] optional: true')
    return f"{kind} [\n" + ",\n".join(f"  {{ {entry} }}" for entry in entries) + "\n]\n"


def write_echo_repository(folder: Path, model_code: str = MODEL, options: bool = False) -> Path:
    """Write the repository into `folder` and return it.

    `model_code` replaces the model's ``model.py``; without `options` the model is one of an earlier export.
    """
    model = folder / "nextitem"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_text(f"TOP_K = {TOP_K}\n{model_code}", encoding="utf-8")
    contract = _tensors("input", INPUTS, -1, OPTIONS if options else None)
    contract += _tensors("output", OUTPUTS, -1 if options else TOP_K)
    (model / "config.pbtxt").write_text(f'backend: "python"\nmax_batch_size: 0\n{contract}', encoding="utf-8")
    (folder / "README.md").write_text("Files beside the models are ignored by Triton.\n", encoding="utf-8")
    return folder
