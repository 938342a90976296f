"""The served model behind a face of plain tensors, for programs that can hand over nothing else.

Triton's PyTorch backend calls ``forward`` with one dictionary of tensors, which has all inputs of its configuration by
name, and takes the tuple of tensors that comes back in its order. Numbers and lists that may be left out do not exist
there, so `PlainRecommender` reads them from tensors.
"""

from pathlib import Path
from typing import Any, Optional  # TorchScript reads this spelling

import torch
from torch import Tensor, nn


class PlainRecommender(nn.Module):
    """A `Recommender` whose inputs are all tensors.

    Parameters
    ----------
    recommender : nn.Module
        See `modeling.export.torchscript.Recommender`; what ``model.pt`` holds is one.
    top_k, excluded, candidates : str
        The names of the inputs that are no columns.
    """

    def __init__(self, recommender: nn.Module, top_k: str, excluded: str, candidates: str) -> None:
        super().__init__()
        self.recommender = recommender
        self.top_k = top_k
        self.excluded = excluded
        self.candidates = candidates

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Recommend.

        Parameters
        ----------
        inputs : dict of Tensor
            The columns; how many, int64 [1]; ids that are not recommended, int64 [B, M], filled up with 0; ids of the
            only ones that may be, int64 [B, C], filled up with 0, or nothing but numbers below 0 for any item.

        Returns
        -------
        Tensor [B, k], float32, and Tensor [B, k], int64
            Scores and item ids, best first.
        """
        named = inputs[self.candidates]
        candidates: Optional[Tensor] = None  # noqa: UP045
        if int(named.max()) >= 0:
            candidates = named
        k = int(inputs[self.top_k][0])
        found: tuple[Tensor, Tensor] = self.recommender(inputs, k, inputs[self.excluded], candidates)
        return found


def export_plain(source: Path | str, target: Path | str, top_k: str, excluded: str, candidates: str) -> Any:
    """Write a model that `export_torchscript` made as one that takes plain tensors.

    Parameters
    ----------
    source, target : Path or str
        The two files.
    top_k, excluded, candidates : str
        See `PlainRecommender`.

    Returns
    -------
    ScriptModule
        What was written.
    """
    recommender = torch.jit.load(str(source), map_location="cpu").eval()
    plain = torch.jit.script(PlainRecommender(recommender, top_k, excluded, candidates).eval())
    torch.jit.save(plain, str(target))
    return plain
