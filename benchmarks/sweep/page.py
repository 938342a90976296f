"""The results as a page of the docs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import transformers

from benchmarks.sweep.reference import REFERENCE, SOURCE
from modeling.checks import CHECKS

_TITLES = {
    "no_leak": "no leak",
    "padding": "padding",
    "batch_mates": "mates",
    "evaluation_is_inference": "eval = serve",
    "most_recent": "recent",
    "learns": "learns",
    "exports": "exports",
}
_INTRO = """# Architectures

Made by `python -m benchmarks.architectures --onnx --jobs 2 --markdown docs/architectures.md` with transformers
{transformers} and torch {torch}; `modeling/checks/` says exactly what is checked.

- **no leak**: exchanging the event to predict, and what follows it, moves no score, in evaluation and in training;
  exchanging the event before it does;
- **padding**, **mates**: more padding, none, or other sessions in the batch move no score;
- **eval = serve**: the held-out item is scored as the shortened session is when it is served;
- **recent**: of a session that is too long the end counts;
- **learns**: recall@1 of 0.95 or more on walks whose next item follows from the last two, and from no fewer (the figure
  is what it reached);
- **exports**: TorchScript equals eager at other batch sizes and lengths, saved and loaded equals saved. Beside it:
  whether ONNX Runtime answers alike, in single precision.

Computed in double precision with weights loud enough to betray every path: two orders of addition differ by some 1e-13,
the limit is 1e-9 of the scores' spread, and a leak is 1e-3 and more.
"""

_REFUSED = (
    "Every other pair is refused by a message that names both and the reason: clm wants a backbone that cannot look "
    "ahead, mlm and rtd one that can, plm a second stream that does not see the item to predict."
)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _cells(cells: list[dict[str, Any]]) -> list[str]:
    onnx = any("onnx" in cell["details"] for cell in cells)
    titles = [_TITLES[name] for name in CHECKS] + (["ONNX"] if onnx else [])
    lines = ["## Architecture x objective", ""]
    lines += [_row("architecture", "objective", *titles, "Transformers4Rec"), _row(*["---"] * (len(titles) + 3))]
    refused: dict[str, list[str]] = {}
    for cell in cells:
        if not cell["supported"]:
            if all(cell["checks"].values()):
                refused.setdefault(cell["architecture"], []).append(cell["masking"])
            else:
                lines.append(_row(cell["architecture"], cell["masking"], "NOT REFUSED", *[""] * len(titles)))
            continue
        ours = []
        for name in CHECKS:
            if not cell["checks"][name]:
                ours.append("NO")
            else:
                ours.append(f"{cell['details']['learns']['deviation']:.2f}" if name == "learns" else "yes")
        if onnx:
            ours.append("yes" if cell["details"].get("onnx", {}).get("passed") else "no")
        known = REFERENCE.get((cell["architecture"], cell["masking"]), "")
        lines.append(_row(cell["architecture"], cell["masking"], *ours, known))
    failed = [cell for cell in cells if not all(cell["checks"].values())]
    supported = sum(cell["supported"] for cell in cells)
    lines += ["", f"{supported} supported cells, {len(failed)} failed. The last column shows the reference's faults:"]
    lines += [SOURCE, "", _REFUSED, ""]
    lines += [f"- {name}: {', '.join(maskings)}" for name, maskings in refused.items()]
    return lines


def _backbones(found: list[dict[str, Any]]) -> list[str]:
    passed = [one for one in found if one["passed"]]
    by_masking = Counter(one["masking"] for one in passed)
    lines = ["", "## Every text backbone of transformers", ""]
    lines += [
        f"A tiny network of each model type whose network takes `inputs_embeds`, handed to `TransformerBlock`: "
        f"**{len(passed)} of {len(found)} pass all seven checks** "
        f"({', '.join(f'{count} under {masking!r}' for masking, count in sorted(by_masking.items()))}).",
        "Those with * see sessions padded to one length, because their own mask does not keep padding out.",
        "",
        ", ".join(one["name"] + ("*" if one.get("fixed_length") else "") for one in passed) + ".",
        "",
        "The others, and why:",
        "",
        _row("model type", "reason"),
        _row("---", "---"),
    ]
    lines += [_row(one["name"], _escaped(one["reason"])[:240]) for one in found if not one["passed"]]
    return lines


def page(result: dict[str, Any]) -> str:
    """The page, from what `--json` prints."""
    lines = [_INTRO.format(transformers=transformers.__version__, torch=torch.__version__.split("+")[0])]
    if result["cells"]:
        lines += _cells(result["cells"])
    if result["backbones"]:
        lines += _backbones(result["backbones"])
    return "\n".join(lines) + "\n"
