"""A session's vector, from its events alone."""

import pytest
import torch

from modeling.sequence import SessionStates
from modeling.tasks.summary import SequenceSummary

NAN = float("nan")


def states() -> SessionStates:
    """Sessions of 3, 1 and no events; what stands at padding is not even a number."""
    values = torch.tensor([[1.0, 2, 3, NAN], [5, NAN, NAN, NAN], [7, NAN, NAN, NAN]])[..., None].repeat(1, 1, 2)
    attend = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]).bool()
    return SessionStates(values, attend, torch.tensor([1, 0, 0]))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("first", [1, 5, 7]), ("last", [3, 5, 7]), ("mean", [2, 5, 7]), ("cls_index", [2, 5, 7])],
)
def test_padding_never_counts(kind: str, expected: list[float]) -> None:
    found = SequenceSummary(kind)(states())
    assert found.tolist() == [[value, value] for value in expected]


def test_default_is_the_last_event_and_none_keeps_all() -> None:
    assert SequenceSummary().summary_type == "last"
    assert SequenceSummary(None)(states())[..., 0].tolist() == [[1, 2, 3, 0], [5, 0, 0, 0], [7, 0, 0, 0]]
    with pytest.raises(ValueError, match="'median'"):
        SequenceSummary("median")


@pytest.mark.parametrize("kind", ["first", "last", "mean", "cls_index"])
def test_traces_to_other_sizes(kind: str) -> None:
    class Summarised(torch.nn.Module):
        def forward(self, values: torch.Tensor, attend: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = SequenceSummary(kind)(SessionStates(values, attend, read))
            return result

    def batch(lengths: list[int], width: int) -> tuple[torch.Tensor, ...]:
        n = torch.tensor(lengths)
        values = torch.randn(len(n), width, 3, generator=torch.Generator().manual_seed(0))
        return values, torch.arange(width) < n[:, None], n - 1

    traced = torch.jit.trace(Summarised(), batch([2, 3], 3))
    for other in (batch([5, 1, 4], 6), batch([1], 1)):
        torch.testing.assert_close(traced(*other), Summarised()(*other))
