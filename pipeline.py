"""A data set's YAML as a whole, and all stages on it in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from common.settings import load_yaml
from modeling.settings import ModelSettings
from preprocessing.settings import Dataset
from serving.settings import ServingSettings


class Run(Dataset):
    """A data set's YAML as a whole: its description, and how to train and serve a model of it."""

    model: ModelSettings = ModelSettings()
    serving: ServingSettings = ServingSettings()


def load_run(path: Path, data_root: Path | None = None, settings: list[str] | None = None) -> Run:
    """Read a data set's YAML; `data_root` and ``KEY=VALUE`` settings replace what it says."""
    overrides = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: write KEY=VALUE, such as sessions.max_length=50")
        overrides[key.strip()] = yaml.safe_load(value)
    run = load_yaml(path, Run, overrides)
    return run.model_copy(update={"data_root": data_root or (Path(path).parent / run.data_root)})


def run_pipeline(run: Run, output: Path, cluster: str | None = None) -> dict[str, Any]:
    """Preprocess, train, evaluate and export.

    Parameters
    ----------
    run : Run
        What to run.
    output : Path
        Folder for ``features/``, ``model/`` and ``model_repository/``.
    cluster : str, optional
        Where to preprocess: see `preprocessing.cluster.Workers`.

    Returns
    -------
    dict
        ``output``, and the result of each stage under its name.
    """
    from modeling.evaluation import evaluate
    from modeling.training import train
    from preprocessing.preprocess import preprocess
    from preprocessing.vocabulary import item_names
    from serving.export import export

    features, model, repository = (output / name for name in ("features", "model", "model_repository"))
    return {
        "output": str(output),
        "preprocess": preprocess(run, features, cluster=cluster),
        "train": train(features, model, run.model, names=item_names),
        "evaluate": evaluate(model, features),
        "export": export(features, model, repository, run.serving),
    }
