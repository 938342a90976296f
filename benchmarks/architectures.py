"""Seven checks of every architecture under every objective, and of every text backbone of transformers.

    python -m benchmarks.architectures [--json] [--cells] [--backbones] [--only NAME ...] [--jobs N] [--onnx]
                                       [--markdown FILE]

Cells: each registered architecture x {clm, mlm, plm, rtd}. A supported one must pass `modeling.checks`; an unsupported
one must be refused by a message that names both. Backbones: a tiny network of each text backbone of the installed
transformers library, handed to TransformerBlock; what it can be trained with is found out by experiment. Without
--cells or --backbones both are done.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small matrices, and children that are forked

import torch

from benchmarks.sweep.isolated import each
from benchmarks.sweep.page import page
from benchmarks.sweep.reference import REFERENCE, SOURCE
from benchmarks.sweep.shrink import backbones, tiny_config
from common.display import show_json, show_line, show_table
from common.errors import UserError
from common.progress import say, step
from modeling.backbones.objectives import OBJECTIVES, SUPPORTED
from modeling.checks import CHECKS, cell_maker, run_checks
from modeling.checks.sessions import FEATURES, LIMIT

SECONDS = 240.0
_WIDTH = 32


def _quiet() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def _maker(name: str) -> Any:
    from modeling.backbones.registry import transformer_registry

    architecture, masking = name.split("/")
    build = transformer_registry[architecture].build
    return cell_maker(lambda limit: build(_WIDTH, 2, 2, limit, dropout=0.0), masking, _WIDTH)


def check_cell(name: str) -> dict[str, Any]:
    """One architecture under one objective, given as ``architecture/masking``."""
    architecture, masking = name.split("/")
    make = _maker(name)
    supported = masking in SUPPORTED[architecture]
    cell: dict[str, Any] = {"architecture": architecture, "masking": masking, "supported": supported}
    if supported:
        results = run_checks(make)
        checks = {result.name: result.passed for result in results}
        details = {result.name: result.to_json() for result in results}
    else:
        why = _refusal(make)
        checks = {"refused": architecture in why and masking in why}
        details = {"refused": {"passed": checks["refused"], "detail": why or "it is built without complaint"}}
    return {**cell, "checks": checks, "details": details}


def _refusal(make: Any) -> str:
    from modeling.checks.learning import RULE_FEATURES

    try:
        make(RULE_FEATURES, 8)
    except ValueError as error:
        return str(error)
    return ""


def check_backbone(model_type: str) -> dict[str, Any]:
    """A tiny network of a model type, under the first objective that it can serve."""
    from modeling.backbones.block import TransformerBlock

    block = TransformerBlock(tiny_config(model_type))
    masking = (block.probe.objectives if block.probe is not None else SUPPORTED[block.model_type])[0]
    results = run_checks(cell_maker(lambda limit: tiny_config(model_type), masking, block.input_dim))
    failed = [f"{result.name}: {result.detail}" for result in results if not result.passed]
    return {
        "name": model_type,
        "passed": not failed,
        "reason": "; ".join(failed),
        "masking": masking,
        "fixed_length": block.probe.fixed if block.probe is not None else False,
        "details": {result.name: result.to_json() for result in results},
    }


def check_cell_and_onnx(name: str) -> dict[str, Any]:
    """The same, and whether ONNX Runtime answers alike, which is told and not required."""
    from modeling.export.onnx import export_onnx

    cell = check_cell(name)
    if cell["supported"]:
        try:
            with tempfile.TemporaryDirectory() as folder:
                export_onnx(_maker(name)(FEATURES, LIMIT), Path(folder) / "model.onnx")
            cell["details"]["onnx"] = {"passed": True, "detail": ""}
        except UserError as error:
            cell["details"]["onnx"] = {"passed": False, "detail": str(error)}
    return cell


def cells(only: list[str], jobs: int, onnx: bool = False) -> list[dict[str, Any]]:
    """All cells; those of some architectures with `only`."""
    names = [f"{a}/{m}" for a in SUPPORTED for m in OBJECTIVES if not only or a in only or f"{a}/{m}" in only]
    found = {}
    with step("Cells", len(names)) as bar:
        for name, result, error in each(check_cell_and_onnx if onnx else check_cell, names, jobs, SECONDS):
            architecture, masking = name.split("/")
            found[name] = result or {
                "architecture": architecture,
                "masking": masking,
                "supported": masking in SUPPORTED[architecture],
                "checks": dict.fromkeys(CHECKS, False),
                "details": {"error": {"passed": False, "detail": error}},
            }
            bar.advance()
            bar.say(name)
    return [found[name] for name in names]


def sweep(only: list[str], jobs: int) -> list[dict[str, Any]]:
    """All backbones; some with `only`."""
    with step("Looking for text backbones"):
        names = list(backbones(only))
    found = []
    with step("Backbones", len(names)) as bar:
        for name, result, error in each(check_backbone, names, jobs, SECONDS):
            one = result or {"name": name, "passed": False, "reason": error}
            found.append(one)
            say(f"{name}: {'passed, ' + one['masking'] if one['passed'] else one['reason']}")
            bar.advance()
            bar.say(f"{sum(one['passed'] for one in found)} passed")
    return sorted(found, key=lambda one: str(one["name"]))


def _ok(cell: dict[str, Any]) -> bool:
    return all(cell["checks"].values())


def show_cells(found: list[dict[str, Any]]) -> None:
    """Ours beside what is known of the reference."""
    rows = []
    onnx = ["ONNX"] if any("onnx" in cell["details"] for cell in found) else []
    for cell in found:
        if cell["supported"]:
            ours = [("yes" if cell["checks"][name] else "NO") for name in CHECKS]
            ours += [("yes" if cell["details"].get("onnx", {}).get("passed") else "no") for _ in onnx]
        else:
            ours = ["refused" if _ok(cell) else "NOT REFUSED", *[""] * (len(CHECKS) - 1 + len(onnx))]
        known = REFERENCE.get((cell["architecture"], cell["masking"]), "")
        rows.append([cell["architecture"], cell["masking"], *ours, known])
    short = ("no leak", "padding", "mates", "eval=serve", "recent", "learns", "exports")
    show_table(
        "Architecture x masking", ("", "masking", *short, *onnx, "Transformers4Rec: leak / pad / eval-serve"), rows
    )
    for cell in found:
        for name, detail in cell["details"].items():
            if not detail["passed"]:
                show_line(f"{cell['architecture']}/{cell['masking']} {name}: {detail['detail']}")
    show_line(SOURCE)


def show_backbones(found: list[dict[str, Any]]) -> None:
    """A row a backbone."""
    rows = [
        [one["name"], one.get("masking", ""), "passed" if one["passed"] else "NO", one["reason"][:90]] for one in found
    ]
    show_table("Text backbones of transformers", ("", "masking", "all checks", "reason"), rows)
    passed = Counter(one["passed"] for one in found)
    show_line(f"{passed[True]} of {len(found)} pass all seven checks")


def main() -> None:
    """Check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="machine-readable results on standard output")
    parser.add_argument("--cells", action="store_true", help="the registered architectures")
    parser.add_argument("--backbones", action="store_true", help="the text backbones of transformers")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="model types (or architecture/masking)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--onnx", action="store_true", help="say of each cell whether it can be written as ONNX")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the results as a page")
    options = parser.parse_args()
    _quiet()
    torch.set_num_threads(1)
    both = options.cells == options.backbones
    result: dict[str, Any] = {"backbones_passed": 0, "backbones": [], "cells": [], "cells_failed": 0}
    if options.cells or both:
        result["cells"] = cells(options.only, options.jobs, options.onnx)
        result["cells_failed"] = sum(not _ok(cell) for cell in result["cells"])
    if options.backbones or both:
        result["backbones"] = sweep(options.only, options.jobs)
        result["backbones_passed"] = sum(one["passed"] for one in result["backbones"])
    if options.markdown:
        options.markdown.write_text(page(result), encoding="utf-8")
    if options.json:
        show_json(result)
    else:
        if result["cells"]:
            show_cells(result["cells"])
        if result["backbones"]:
            show_backbones(result["backbones"])
    sys.exit(1 if result["cells_failed"] else 0)


if __name__ == "__main__":
    main()
