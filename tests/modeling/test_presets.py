"""Recipes by name: what they change, and what changes them."""

from pathlib import Path

import pytest

from common.errors import UserError
from modeling.presets import PRESETS, read_preset
from modeling.settings import ModelSettings
from pipeline import load_run, load_settings

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_trained_with_whatever_the_yaml_says(name: str, tmp_path: Path) -> None:
    recipe = read_preset(name)
    assert ModelSettings(**recipe).evidence
    yaml = tmp_path / "model.yaml"
    yaml.write_text("model: {architecture: xlnet, masking: plm, d_model: 96, n_head: 6, n_layer: 5, epochs: 99}")
    given = load_settings(yaml, None, name).model
    assert {key: getattr(given, key) for key in recipe} == recipe


def test_a_preset_replaces_the_yaml_and_a_setting_the_preset() -> None:
    yaml, recipe = EXAMPLES / "eshop_clothing_2008.yaml", read_preset("accurate")
    assert load_run(yaml).model.epochs == 12
    assert load_run(yaml, preset="accurate").model.epochs == recipe["epochs"] != 12
    changed = load_run(yaml, settings=["model.epochs=3"], preset="accurate").model
    assert (changed.epochs, changed.d_model) == (3, recipe["d_model"])
    assert load_settings(None, None, "fast").model == ModelSettings(**read_preset("fast"))
    assert load_settings(None, None).model == ModelSettings()


def test_an_unknown_preset_is_named_beside_those_there_are() -> None:
    with pytest.raises(UserError, match="--preset best is not known: choose accurate or fast"):
        load_run(EXAMPLES / "online_retail.yaml", preset="best")
