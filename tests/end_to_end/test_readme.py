"""What the README shows is run as it stands."""

import re
import subprocess
from pathlib import Path

import pytest

import nextitem

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_yaml_of_your_own_data_is_valid(tmp_path):
    (text,) = blocks("yaml")
    assert len(text.splitlines()) <= 11
    (tmp_path / "my_shop.yaml").write_text(text)
    run = nextitem.load_run(tmp_path / "my_shop.yaml")
    assert run.events.files == ["clicks/*.parquet"]
    assert run.model.epochs == 10


def test_the_python_client(server, capsys):
    (code,) = (block for block in blocks("python") if "NextItemClient" in block)
    assert "127.0.0.1:8001" in code
    exec(compile(code.replace("127.0.0.1:8001", server.addresses["grpc"]), "README", "exec"), {})
    assert re.match(r"7 \['sku-\d+'(, 'sku-\d+'){4}\] \d\n", capsys.readouterr().out)


def test_curl(server):
    (code,) = blocks("bash")
    command = code.replace("127.0.0.1:8000", server.addresses["http"])
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"name":"item_id"' in done.stdout
    assert "sku-" in done.stdout


def test_the_library(shop, monkeypatch):
    build, use = (block for block in blocks("python") if "tr." in block)
    monkeypatch.chdir(shop)
    names: dict = {}
    exec(compile(build, "README", "exec"), names)
    exec(compile(use, "README", "exec"), names)
    assert names["items"].shape == (4, 5)
    assert (names["items"] >= 3).all()
    assert {path.name for path in shop.glob("my_model/*")} == {"model.json", "model.safetensors"}
    assert (shop / "model.pt").is_file()


def test_every_command_that_is_named_exists():
    named = set(re.findall(r"\.venv/bin/nextitem (\w+)", README))
    assert {"run", "serve", "recommend", "loadtest", "playground", "deploy"} <= named
    assert all(callable(getattr(nextitem, name)) for name in named)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_both_commands_are_make_targets(target):
    assert f"    make {target} " in README
    done = subprocess.run(["make", "-n", target], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
