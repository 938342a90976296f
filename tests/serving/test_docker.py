"""The images and the compose file, as far as they can be checked without a Docker engine.

Real linters read them, and every command in them is run or at least asked whether it knows its options, on just
the files that .dockerignore lets into an image.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from preprocessing.shop import ShopSettings, write_events
from serving.ports import free_ports
from serving.server import TritonServer

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
# Those that run our image; the others are images of Prometheus and Grafana.
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def run(*command: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **variables})


def defaults(text: str) -> str:
    """The text as compose reads it when no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def instruction(name: str) -> list[str]:
    found = re.findall(rf"^{name} (\[.*\])$", DOCKERFILE, flags=re.MULTILINE)
    assert len(found) == 1
    return json.loads(found[0])


COMMANDS = {"Dockerfile": instruction("CMD")}
COMMANDS |= {name: [defaults(part) for part in service["command"]] for name, service in OURS.items()}


def lets_through(path: str) -> bool:
    """Whether .dockerignore lets a file into the image: the last pattern that matches it or a parent decides."""
    parts = path.split("/")
    inside = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").rstrip("/")
        if pattern.startswith("**/"):
            matched = any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
        else:
            assert "/" not in pattern, "this reader knows top-level names only"
            matched = fnmatch.fnmatch(parts[0], pattern)
        if matched:
            inside = line.startswith("!")
    return inside


def copy_clean(folder: Path) -> Path:
    """Copy the files of a clone that .dockerignore lets through, and no others."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines()
    for name in filter(lets_through, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture
def clean_folder(tmp_path: Path) -> Path:
    return copy_clean(tmp_path)


def test_dockerfile_lints() -> None:
    done = run(str(BIN / "hadolint"), "docker/Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")
    assert "hadolint ignore" not in DOCKERFILE


def test_compose_file_lints() -> None:
    done = run(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_profiles() -> None:
    assert {name: service.get("profiles") for name, service in SERVICES.items()} == {
        "server": None,
        "server-gpu": ["gpu"],
        "server-secure": ["secure"],
        "train": ["train"],
        "loadtest": ["loadtest"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }
    devices = SERVICES["server-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


def test_ports_are_published_on_this_machine_only_and_do_not_clash() -> None:
    published = [defaults(port) for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) >= 8
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:(800[012]|9090|3000)", port) for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)


def test_servers_mount_the_repository_read_only_and_run_as_somebody() -> None:
    for name in ("server", "server-gpu", "server-secure"):
        (volume,) = SERVICES[name]["volumes"]
        assert volume["target"] == COMMANDS[name][1] == "/model_repository"
        assert volume["read_only"]
        assert defaults(SERVICES[name]["user"]) == "1000:1000"
    assert re.findall(r"^USER (\d+)$", DOCKERFILE, flags=re.MULTILINE) == ["1000"]


def health_check(program: str, address: str) -> int:
    """The exit code of the servers' health check, of a server elsewhere."""
    kind, called, *arguments = SERVICES["server"]["healthcheck"]["test"]
    assert (kind, called) == ("CMD", "nextitem")
    return run(program, *arguments, "--url", address).returncode


def test_health_check_asks_for_a_recommendation(echo_server: TritonServer) -> None:
    assert SERVICES["server-gpu"]["healthcheck"] == SERVICES["server"]["healthcheck"]
    assert health_check(str(BIN / "nextitem"), echo_server.addresses["grpc"]) == 0
    assert health_check(str(BIN / "nextitem"), f"127.0.0.1:{free_ports(1)[0]}") == 1, "nobody listens"


def test_nothing_that_runs_for_long_may_write_or_gain_rights() -> None:
    for name in ("server", "server-gpu", "server-secure", "prometheus", "grafana"):
        service = SERVICES[name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_images_of_others_are_pinned_and_their_files_exist() -> None:
    for name in ("prometheus", "grafana"):
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])
        mounted = [volume.split(":") for volume in SERVICES[name]["volumes"]]
        files = [source for source, *_ in mounted if source.startswith("./")]
        assert len(files) >= 2
        assert all((ROOT / file).is_file() for file in files)
        assert {source for source, *_ in mounted} - set(files) <= set(COMPOSE["volumes"])


def test_build_arguments_of_compose_are_those_of_the_dockerfile() -> None:
    declared = set(re.findall(r"^ARG (\w+)", DOCKERFILE, flags=re.MULTILINE))
    for service in OURS.values():
        assert set(service["build"].get("args", {})) <= declared
        assert (ROOT / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", COMMANDS)
def test_command_line_knows_every_command(name: str) -> None:
    assert instruction("ENTRYPOINT") == ["nextitem"]
    command, *arguments = COMMANDS[name]
    done = run(str(BIN / "nextitem"), command, "--help", COLUMNS="200", NO_COLOR="1", TERM="dumb")
    assert done.returncode == 0, done.stderr
    flags = [argument for argument in arguments if argument.startswith("-")]
    assert flags
    for flag in flags:
        assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", done.stdout), f"{command} has no {flag}"


def test_data_set_that_train_names_exists() -> None:
    assert (ROOT / COMMANDS["train"][1]).is_file()


def test_image_holds_what_an_installation_needs_and_nothing_else(clean_folder: Path) -> None:
    top = {path.name for path in clean_folder.iterdir()}
    modules = {"nextitem.py", "screens.py", "pipeline.py", "demo.py"}
    code = {"commands", "common", "preprocessing", "modeling", "serving"} | modules
    needed = code | {"Makefile", "pyproject.toml", "requirements.lock", "README.md"}
    assert top - {"examples"} == needed
    steps = re.findall(r"^RUN .*?(make .*)$", DOCKERFILE, flags=re.MULTILINE)
    assert steps == ["make install"]
    dry = run("make", "--dry-run", "install", cwd=clean_folder)
    assert dry.returncode == 0, dry.stderr
    assert ".venv/bin/uv pip install" in dry.stdout.replace(str(clean_folder), ".")


def test_package_builds_from_the_clean_folder_and_runs_there(clean_folder: Path, tmp_path_factory: Any) -> None:
    """The package installs from just these files, and the installed command line starts without the clone."""
    target = tmp_path_factory.mktemp("installed")
    done = run(
        str(BIN / "uv"), "pip", "install", "--quiet", "--no-deps", "--target", str(target), ".", cwd=clean_folder
    )
    assert done.returncode == 0, done.stderr
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r}); import nextitem, serving.server, preprocessing, modeling;"
        "print(nextitem.__file__, serving.server.__file__, preprocessing.__file__, modeling.__file__)"
    )
    done = run(sys.executable, "-c", code, cwd=target)
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(target)) for path in done.stdout.split())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images' own build step, run for real on just the files that they hold: a whole environment."""
    folder = copy_clean(tmp_path_factory.mktemp("image"))
    done = run("make", "install", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_every_command_of_the_images_runs_in_a_clean_folder(installed: Path, tmp_path: Path) -> None:
    """Train, serve, health check and load test, with the mounted folders and ports of compose replaced by ours."""
    program = str(installed / ".venv" / "bin" / "nextitem")
    data, output = tmp_path / "data", tmp_path / "output"
    data.mkdir()
    write_events(ShopSettings(sessions=1_000, items=120, categories=6), data / "events.parquet")
    http, grpc, metrics = map(str, free_ports(3))
    replaced = {
        "examples/online_retail.yaml": "examples/simulated_shop.yaml",
        "/data": str(data),
        "/output": str(output),
        "/model_repository": str(output / "model_repository"),
        "/features/sample.parquet": str(output / "features" / "sample.parquet"),
        "server:8001": f"127.0.0.1:{grpc}",
    }
    train, serve, loadtest = (
        [program, *(replaced.get(part, part) for part in COMMANDS[name])] for name in ("train", "server", "loadtest")
    )
    done = run(*train, "--set", "model.epochs=1", "--set", "model.threads=1", cwd=installed)
    assert done.returncode == 0, done.stderr
    assert COMMANDS["server"] == COMMANDS["server-gpu"] == [*COMMANDS["Dockerfile"], "--log-format", "json"]
    ports = ["--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics]
    server = subprocess.Popen(
        [*serve, *ports], cwd=installed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        ready = (json.loads(line)["message"].startswith("ready: ") for line in server.stdout)
        assert any(ready), "it says so when it is ready"
        assert health_check(program, f"127.0.0.1:{grpc}") == 0
        done = run(*loadtest, "--concurrency", "1", "--requests", "100", "--json", cwd=installed)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rows"][0]["req_per_s"] > 0
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
