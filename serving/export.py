"""The export stage: ``features/`` and ``model/`` in, a Triton ``model_repository/`` out."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from common.artefacts import identity, new_folder, read_manifest
from common.errors import UserError
from common.progress import step
from serving import MODEL, RANKER
from serving.runtime import WEIGHTS
from serving.runtime.program import RequestProgram
from serving.settings import Backend, ServingSettings

KEPT = ("README.md",)


def export(
    features: Path | str,
    model: Path | str,
    output: Path | str = "model_repository",
    settings: ServingSettings | None = None,
    version: int = 1,
    check: bool = True,
    backend: Backend = "python",
) -> dict[str, Any]:
    """Package the fitted workflow and the trained model for Triton.

    Parameters
    ----------
    features, model : Path or str
        What `preprocess` and `train` wrote; the model must have been trained on these features.
    output : Path or str
        The model repository to write, with its ensemble ``nextitem``.
    settings : ServingSettings, optional
        Batch size, instances, threads and the number of recommendations.
    version : int
        The Triton version of the model.
    check : bool
        Compare the compiled workflow with NVTabular's on the sample of sessions in ``features/``.
    backend : {"python", "pytorch"}
        What runs the model: the process that answers, or Triton's PyTorch backend, in a Triton model of its own.

    Returns
    -------
    dict
        The names, inputs and outputs of the ensemble.

    Raises
    ------
    UserError
        When a folder is missing or was altered, the two do not belong together, the workflow holds an operator
        that cannot be served, or what was compiled gives something else.
    """
    features, model = Path(features), Path(model)
    settings = _fitting(features, model, settings or ServingSettings())
    inputs = {"features": identity(features), "model": identity(model)}
    with new_folder(output, "model_repository", settings.model_dump(), inputs, keep=KEPT) as folder:
        with step("Exporting the ensemble") as bar:
            entry, workflow = _export_ensemble(features, model, folder.path, settings, version, backend)
            bar.say(", ".join(sorted(path.name for path in folder.path.iterdir() if path.is_dir())))
        program = _answering(folder.path / MODEL / str(version), model)
        if check:
            from serving.verify import verify

            folder.report["verified_sessions"] = verify(workflow, program, features / "sample.parquet")
        folder.report |= {
            "ensemble": entry.name,
            "version": version,
            "backend": backend,
            "top_k": settings.top_k,
            "inputs": [tensor.name for tensor in entry.input],
            "outputs": [tensor.name for tensor in entry.output],
        }
    return folder.report


def export_stock(
    features: Path | str,
    model: Path | str,
    output: Path | str = "model_repository",
    settings: ServingSettings | None = None,
) -> dict[str, Any]:
    """Package with the stock operators of merlin-systems, to be compared with: pandas runs the workflow per request.

    Takes and raises what `export` does; see `serving.stock` for what clients send and receive.
    """
    features, model = Path(features), Path(model)
    settings = _fitting(features, model, settings or ServingSettings())
    inputs = {"features": identity(features), "model": identity(model)}
    with (
        new_folder(output, "model_repository", settings.model_dump(), inputs, keep=KEPT) as folder,
        step("Exporting the stock ensemble"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        from preprocessing.preprocess import load_workflow
        from serving.stock import export_stock as write

        request = json.loads((features / "request.json").read_text(encoding="utf-8"))
        folder.report |= write(load_workflow(features), request, model, folder.path, settings.top_k)
    return folder.report


def _fitting(features: Path, model: Path, settings: ServingSettings) -> ServingSettings:
    """Verify both folders and that they belong together; the settings, with a `top_k` that the model can give."""
    read_manifest(features, "features", "nextitem preprocess")
    manifest = read_manifest(model, "model", "nextitem train")
    if manifest["inputs"].get("features") != identity(features):
        raise UserError(f"{model} was trained on other features than {features}: run 'nextitem train' again")
    facts = json.loads((model / "model.json").read_text(encoding="utf-8"))
    top_k = min(settings.top_k, facts["catalogue_size"])
    if top_k > facts["top_k"]:
        raise UserError(
            f"serving.top_k is {top_k}, but {model} gives at most {facts['top_k']}: train with a larger top_k"
        )
    return settings.model_copy(update={"top_k": top_k})


def _answering(folder: Path, model: Path) -> RequestProgram:
    """Load what was written as the server will, and have it answer."""
    import torch

    from serving.runtime.engine import Engine
    from serving.runtime.remote import PlainRanker, ask_module

    weights = folder.parents[1] / RANKER / folder.name / WEIGHTS
    ranker = PlainRanker(ask_module(weights)) if weights.is_file() else None
    threads = torch.get_num_threads()
    try:
        engine = Engine(folder, device="cpu", ranker=ranker)
        if ranker is not None:
            engine.warm_up()
        return engine.program
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{model} does not answer ({reason}): run 'nextitem train' again") from error
    finally:
        torch.set_num_threads(threads)


def _export_ensemble(
    features: Path, model: Path, folder: Path, settings: ServingSettings, version: int, backend: Backend
) -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Merlin takes seconds to import, and only this stage needs it.
        from merlin.systems.dag.ensemble import Ensemble

        from preprocessing.preprocess import load_workflow
        from serving.operators import NextItemRuntime, RankItems, TransformEvents

        workflow = load_workflow(features)
        request = json.loads((features / "request.json").read_text(encoding="utf-8"))
        columns = [column["name"] for column in request["columns"]]
        graph = columns >> TransformEvents(workflow, request) >> RankItems(model)
        ensemble = Ensemble(graph, workflow.input_schema)
        entry, _ = ensemble.export(str(folder), runtime=NextItemRuntime(settings, backend), version=version)
    return entry, workflow
