"""The search: section of a YAML: what it may say, and the one line that a mistake gets."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.settings import validate
from modeling.search.space import DEFAULT, Range, distributions_of, inside
from modeling.settings import ModelSettings
from pipeline import Stages, load_settings


def space_of(text: str, tmp_path: Path) -> Any:
    (tmp_path / "s.yaml").write_text(f"search: {text}\n")
    return load_settings(tmp_path / "s.yaml", None).search


def test_ranges_and_choices_become_distributions(tmp_path: Path) -> None:
    text = "{learning_rate: {low: 0.001, high: 0.1, log: true}, n_layer: {low: 1, high: 4}, masking: [null, mlm]}"
    found = distributions_of(space_of(text, tmp_path))
    assert (found["learning_rate"].low, found["learning_rate"].high, found["learning_rate"].log) == (0.001, 0.1, True)
    assert (type(found["n_layer"]).__name__, found["n_layer"].high) == ("IntDistribution", 4)
    assert found["masking"].choices == (None, "mlm")


def test_choices_keep_their_types(tmp_path: Path) -> None:
    space = space_of("{sample_from_batch: [true, false], d_model: [16, 32], dropout: [0, 0.5]}", tmp_path)
    assert space == {"sample_from_batch": (True, False), "d_model": (16, 32), "dropout": (0, 0.5)}
    assert [type(value) for value in (*space["sample_from_batch"], *space["d_model"])] == [bool, bool, int, int]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{learning_rat: [0.1]}", "there is no setting 'learning_rat': did you mean 'learning_rate'"),
        ("{zzz: [0.1]}", "there is no setting 'zzz': known settings: .*dropout"),
        ("{seed: [1, 2]}", "seed cannot be searched: that is luck"),
        ("{exclude: [none, last]}", "exclude cannot be searched: it changes what is measured"),
        ("{dropout: {low: 0.0, high: 0.5, setp: 1}}", "dropout: there is no key 'setp': did you mean 'step'"),
        ("{dropout: {low: 0.5}}", "dropout: the key 'high' is missing"),
        ("{dropout: {low: 0.5, high: 0.1}}", r"low \(0.5\) must be below high \(0.1\)"),
        ("{dropout: {low: 0.0, high: 0.1, log: true}}", "low must be above 0 on a logarithmic scale"),
        ("{dropout: {low: 0.0, high: 1.5}}", "dropout: .*less than 1, not 1.5"),
        ("{dropout: {low: 0.0, high: 0.5, step: 0.2}}", "steps of 0.2 do not lead from 0 to 0.5"),
        ("{n_layer: {low: 1, high: 2.5}}", "n_layer.high: must be a whole number, not 2.5"),
        ("{architecture: {low: 1, high: 2}}", "architecture is no number: write choices"),
        ("{architecture: [gpt2, gpt3]}", "architecture: must be one of .*, not 'gpt3'"),
        ("{d_model: [wide]}", "d_model: .*valid integer.*, not 'wide'"),
        ("{d_model: 64}", r"d_model: write choices as \[a, b\], or a range"),
        ("{d_model: []}", "d_model: write choices"),
        ("{d_model: [64, 64]}", "d_model: a choice is there twice"),
        ("{}", "write settings and their ranges"),
    ],
)
def test_a_mistake_names_the_setting(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"search: .*{message}") as caught:
        space_of(text, tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "s.yaml"))
    assert "\n" not in str(caught.value)


def test_settings_that_only_together_do_not_fit_are_for_the_trials_to_tell(tmp_path: Path) -> None:
    # 3 heads fit a width of 48, not the default of 64.
    assert space_of("{n_head: [3, 4], d_model: [48, 64]}", tmp_path)["n_head"] == (3, 4)


def test_a_yaml_without_a_data_set_gives_settings_and_one_with_it_is_checked_whole(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    path.write_text("model: {dropout: 0.3}\n")
    assert load_settings(path, ["model.d_model=32"]).model == ModelSettings(dropout=0.3, d_model=32)
    path.write_text("model: {dropout: 0.3}\nname: shop\n")
    with pytest.raises(UserError, match="the key 'events' is missing"):
        load_settings(path, None)
    assert load_settings(None, None) == Stages()


def test_what_the_space_has_of_settings() -> None:
    own = ModelSettings(dropout=0.2, d_model=64, n_layer=2, learning_rate=0.5)
    space = {
        "dropout": Range(low=0.0, high=0.4, step=0.1),
        "label_smoothing": Range(low=0.1, high=0.3),
        "d_model": (32, 64),
        "n_layer": (1, 3),
        "learning_rate": Range(low=0.001, high=0.01, log=True),
    }
    assert inside(space, own) == {"dropout": 0.2, "d_model": 64}
    assert inside({"dropout": Range(low=0.0, high=0.3, step=0.15)}, own) == {}


def test_the_default_ranges_are_settings_and_have_the_default_settings_in_them() -> None:
    given = {name: one.model_dump() if isinstance(one, Range) else list(one) for name, one in DEFAULT.items()}
    assert validate({"search": given}, Stages, "default").search == DEFAULT
    assert set(inside(DEFAULT, ModelSettings())) == set(DEFAULT)
