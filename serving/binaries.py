"""The native programs that wheels bring, tritonserver and perf_analyzer, made to run without Docker.

Neither program runs from where its wheel puts it: the server wants a backend folder with the stub of the running
Python in it, the load generator wants two libraries under names that the wheel changed. `tritonserver` and
`perf_analyzer` find them and link what they need into a work folder of the caller's; site-packages is never written.

    with tempfile.TemporaryDirectory() as work:
        program = perf_analyzer(Path(work))
        subprocess.run([*program.command, "-m", "nextitem"], env=program.environment)
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError

_STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class Program:
    """How to start a native program.

    Attributes
    ----------
    command : list of str
        The executable, and the arguments without which it does not find its parts.
    environment : dict of str to str
        The whole environment to start it with.
    """

    command: list[str]
    environment: dict[str, str]


def tritonserver(work: Path) -> Program:
    """Find tritonserver: ``$NEXTITEM_TRITONSERVER``, then ``PATH`` (the NGC image), then the nvidia-pytriton wheel.

    Parameters
    ----------
    work : Path
        An existing folder that outlives the server; the backend folder is linked together in it.

    Returns
    -------
    Program

    Raises
    ------
    UserError
        When there is no tritonserver, or the running Python lacks what the Python backend needs.

    Notes
    -----
    A tritonserver of the system brings backends, stub and libraries of its own and is started as it is. That branch
    was not run with NGC's image; its Python must be able to import what the models import.
    """
    chosen = _chosen("NEXTITEM_TRITONSERVER")
    system = shutil.which(chosen or "tritonserver")
    if system:
        return Program([system], dict(os.environ))
    package = _package("pytriton") / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = package / "python_backend_stubs" / version / _STUB
    if not stub.is_file():
        raise UserError(f"nvidia-pytriton has no Python backend for Python {version}: use Python 3.11")
    backend = work / "backends" / "python"
    backend.mkdir(parents=True)
    for part in [*(package / "backends" / "python").iterdir(), stub]:
        (backend / part.name).symlink_to(part)
    environment = dict(os.environ)
    # The order matters: with another libpython of the same version found first, the stub fails in `_ssl`.
    libraries = [*_libpython(), _wheel_libraries()]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, libraries))
    # The stub finds its site-packages through the first `python` in PATH.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    command = [str(package / "bin" / "tritonserver"), f"--backend-directory={backend.parent}"]
    command.append(f"--cache-directory={package / 'caches'}")
    return Program(command, environment)


def perf_analyzer(work: Path) -> Program:
    """Find perf_analyzer: ``$NEXTITEM_PERF_ANALYZER``, then the one that ``make install`` set up, then ``PATH``.

    Parameters
    ----------
    work : Path
        An existing folder that outlives the program; two libraries are linked into it.

    Returns
    -------
    Program

    Raises
    ------
    UserError
        When there is none.
    """
    chosen = _chosen("NEXTITEM_PERF_ANALYZER")
    installed = Path(sys.prefix) / "perf_analyzer" / "bin" / "perf_analyzer"
    path = shutil.which(chosen or str(installed)) or shutil.which("perf_analyzer")
    if not path:
        raise UserError(
            f"perf_analyzer is not installed (no {installed}, none on PATH): run 'make install', "
            "or name one in NEXTITEM_PERF_ANALYZER"
        )
    environment = dict(os.environ)
    if Path(path) == installed:
        libraries = work / "libraries"
        libraries.mkdir(parents=True)
        for name in ("libb64.so.0d", "libcudart.so.12"):
            _link_library(name, libraries)
        environment["LD_LIBRARY_PATH"] = str(libraries)
    return Program([path], environment)


def _chosen(variable: str) -> str | None:
    """The program that an environment variable names, if it names one."""
    chosen = os.environ.get(variable)
    if chosen and not shutil.which(chosen):
        raise UserError(f"{variable} names {chosen}, which is not a program that can be run")
    return chosen


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise UserError("there is no tritonserver here: run 'make install', or name one in NEXTITEM_TRITONSERVER")
    return Path(found.submodule_search_locations[0])


def _wheel_libraries() -> Path:
    return _package("pytriton").parent / "nvidia_pytriton.libs"


def _link_library(name: str, folder: Path) -> None:
    """Link a library of the wheel under its plain name: wheels rename ``libx.so.1`` to ``libx-<hash>.so.1.2``."""
    stem, _, version = name.partition(".so.")
    found = sorted(_wheel_libraries().glob(f"{stem}-*.so.{version}*"))
    if found:
        (folder / name).symlink_to(found[0])


def _libpython() -> list[Path]:
    """The folder of the running Python's shared library, to be searched before any other."""
    name = sysconfig.get_config_var("INSTSONAME") or ""
    folders = [sysconfig.get_config_var("LIBDIR") or "", f"{sys.base_prefix}/lib"]
    folders.append(f"{folders[0]}/{sysconfig.get_config_var('MULTIARCH') or ''}")
    for folder in map(Path, folders):
        if ".so" in name and (folder / name).is_file():
            return [folder]
    raise UserError(
        f"the Python in {sys.base_prefix} has no shared libpython, which Triton's Python backend needs: "
        "use a Python built with --enable-shared"
    )
