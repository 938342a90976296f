"""A wrong YAML gets one line that names the file and the key."""

import pytest

from common.errors import UserError
from common.settings import load_yaml
from pipeline import Run, load_run

GOOD = """
name: shop
events: {files: events.csv, session: visit, item: sku, time: at}
features: {item: {categorical: [brand], continuous: [price, {column: stock, log: true}]}, time: [hour]}
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid YAML"),
        ("- a\n- b", "must hold keys and values"),
        (GOOD + "sesions: {max_length: 3}", "no key 'sesions': did you mean 'sessions'"),
        (GOOD.replace("categorical", "categoricals"), "features.item.categoricals': did you mean 'categorical'"),
        (GOOD.replace("item: sku, ", ""), "the key 'events.item' is missing"),
        (GOOD.replace("session: visit, ", ""), "name either 'session' or 'user'"),
        (GOOD.replace("session: visit", "user: visit"), "sessions.gap and events.user go together"),
        (GOOD + "sessions: {max_length: 1}", "sessions.max_length: .*greater than or equal to 2, not 1"),
        (GOOD + "sessions: {gap: soon}", "write a duration such as '30 min'"),
        (GOOD + "split: {valid: 0.6, test: 0.5}", "leave nothing to train on"),
        (GOOD + "split: {test_from: 2020-01-01}", "give both valid_from and test_from"),
        (GOOD.replace("[brand]", "[brand, price]"), "'price' is named twice"),
        (GOOD.replace("[brand]", "[sku]"), "'sku' is the session or the item already"),
        (GOOD.replace("[brand]", "[hour_sin]"), "is the name of a feature that nextitem makes"),
        (GOOD.replace("[brand]", '["a/b"]'), "column name 'a/b' cannot be used"),
        (GOOD + "model: {n_head: 3}", "must divide d_model"),
    ],
)
def test_error_names_file_and_key(tmp_path, text, message):
    path = tmp_path / "shop.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_yaml(path, Run)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_flags_replace_settings(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(GOOD)
    run = load_run(path, settings=["sessions.max_length=7", "model.architecture=xlnet"])
    assert run.sessions.max_length == 7
    assert run.model.architecture == "xlnet"
    assert run.features.item.continuous[1].log
    assert run.events.files == ["events.csv"]
    with pytest.raises(UserError, match="write KEY=VALUE"):
        load_run(path, settings=["sessions.max_length"])


def test_data_root_is_relative_to_the_yaml_unless_given(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(GOOD + "data_root: data\n")
    assert load_run(path).data_root == tmp_path / "data"
    assert load_run(path, data_root=tmp_path).data_root == tmp_path


def test_missing_file():
    with pytest.raises(UserError, match=r"nowhere\.yaml cannot be read"):
        load_yaml("nowhere.yaml", Run)
