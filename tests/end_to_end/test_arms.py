"""Two versions behind one face, in this process."""

import json
import shutil

import numpy as np
import pytest

from common.artefacts import sha256
from serving.columns import convert_events
from serving.runtime.arms import Arms
from serving.runtime.columns import RequestError
from serving.runtime.engine import Engine


def test_versions_that_give_different_numbers_of_items(shop, sample, tmp_path):
    """Nobody asked for a number: all sessions get as many as the more modest version gives."""
    for version in ("1", "2"):
        shutil.copytree(shop / "model_repository" / "nextitem" / "1", tmp_path / version)
    settings = json.loads((tmp_path / "2" / "serving.json").read_text())
    settings["limits"]["top_k"] = 7
    (tmp_path / "2" / "serving.json").write_text(json.dumps(settings))
    checksums = json.loads((tmp_path / "2" / "checksums.json").read_text())
    checksums["serving.json"] = sha256(tmp_path / "2" / "serving.json")
    (tmp_path / "2" / "checksums.json").write_text(json.dumps(checksums))

    alone = Engine(tmp_path / "1")
    raw = convert_events(sample, {column.name: column.type for column in alone.program.columns})
    arms = Arms(tmp_path, {1: 0.5, 2: 0.5})
    (answer,) = arms.answer([arms.read(raw)])
    (whole,) = alone.answer([alone.read(raw)])
    assert answer["item_id"].shape == (len(whole["session_id"]), 7)
    assert answer["session_id"].tolist() == whole["session_id"].tolist()
    np.testing.assert_allclose(answer["score"], whole["score"][:, :7], rtol=1e-4, atol=1e-5)
    with pytest.raises(RequestError, match="'top_k' is 20: ask for 1 to 7 items"):
        arms.read(raw | {"top_k": np.array([20])})
