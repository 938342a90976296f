"""Put an exported model on a device.

A traced model remembers the device it was traced on in the tensors that it makes itself (positions, masks), so
loading it elsewhere takes two steps: move the weights, and rewrite those constants. Not run on a GPU where this
repository is tested; a model that does not answer on one is served from the CPU instead.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def pin(model: Any, device: str) -> int:
    """Rewrite the devices that a TorchScript model names to `device`, before its first call compiles them in.

    Returns how many there were.
    """
    constants = [
        node for node in model.graph.findAllNodes("prim::Constant") if node.output().type().kind() == "DeviceObjType"
    ]
    for node in constants:
        node.s_("value", device)
    return len(constants)


def load(path: Path, device: str) -> Any:
    """Load a TorchScript model onto a device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``."""
    model = torch.jit.load(str(path), map_location=device).eval()
    if device != "cpu":
        pin(model, device)
    return model


def load_where_it_answers(
    path: Path, wanted: str, answers: Callable[[Any, str], Any], warn: Callable[[str], None]
) -> tuple[Any, str]:
    """Load a model where it is wanted, and try it.

    Parameters
    ----------
    path : Path
        The TorchScript file.
    wanted : {"auto", "cpu", "cuda"}
        ``"auto"`` takes a GPU that is there, and the CPU when the model does not answer on it.
    answers : callable
        Called with the model and its device; raises when the model does not work.
    warn : callable
        Told, in one line, why the GPU was not taken.

    Returns
    -------
    model, device : ScriptModule, str
    """
    if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()):
        try:
            model = load(path, "cuda")
            answers(model, "cuda")
            return model, "cuda"
        except Exception as error:  # whatever the driver says: with "auto" an answer matters more than where from
            if wanted == "cuda":
                raise
            warn(f"the model does not run on the GPU and is served from the CPU: {str(error).strip().splitlines()[-1]}")
    model = load(path, "cpu")
    answers(model, "cpu")
    return model, "cpu"
