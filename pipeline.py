"""A data set's YAML as a whole, and all stages on it in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from common.settings import Settings, load_yaml, read_yaml
from modeling.presets import read_preset
from modeling.search.space import Space
from modeling.settings import ModelSettings
from preprocessing.settings import Dataset
from serving.settings import ServingSettings


class Stages(Settings):
    """What a YAML says of the stages after the events are prepared."""

    model: ModelSettings = ModelSettings()
    search: Space | None = None
    serving: ServingSettings = ServingSettings()


class Run(Dataset, Stages):
    """A data set's YAML as a whole: its description, and how to train and serve a model of it."""


def load_run(
    path: Path, data_root: Path | None = None, settings: list[str] | None = None, preset: str | None = None
) -> Run:
    """Read a data set's YAML; `data_root`, a preset and ``KEY=VALUE`` settings replace what it says, in this order."""
    run = load_yaml(path, Run, _overrides(settings, preset))
    return run.model_copy(update={"data_root": data_root or (Path(path).parent / run.data_root)})


def load_settings(config: Path | None, settings: list[str] | None, preset: str | None = None) -> Stages:
    """What the stages after preprocessing run with: from a YAML and ``KEY=VALUE`` settings, or the defaults.

    The YAML is that of a data set, or one with a 'model' section alone, as ``nextitem search`` writes it. A preset
    replaces what it says.
    """
    if config is None:
        if settings:
            raise UserError("--set needs the YAML that it changes: give --config too")
        return Stages(model=ModelSettings(**read_preset(preset))) if preset else Stages()
    kind = Stages if set(read_yaml(config)) <= set(Stages.model_fields) else Run
    return load_yaml(config, kind, _overrides(settings, preset))


def _overrides(settings: list[str] | None, preset: str | None = None) -> dict[str, Any]:
    overrides = {f"model.{key}": value for key, value in read_preset(preset).items()} if preset else {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: write KEY=VALUE, such as sessions.max_length=50")
        overrides[key.strip()] = yaml.safe_load(value)
    return overrides


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
