"""Exported models move to the device that they are served on, as far as a machine without a GPU can show."""

import pytest
import torch
from torch import Tensor, nn

from serving.runtime.devices import load, load_where_it_answers, pin


class Positions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(x.shape[1], device=x.device)


@pytest.fixture
def path(tmp_path):
    traced = torch.jit.freeze(torch.jit.trace(Positions().eval(), torch.zeros(1, 2)).eval())
    traced.save(str(tmp_path / "model.pt"))
    return tmp_path / "model.pt"


def test_every_device_that_the_trace_remembers_is_rewritten(path):
    assert load(path, "cpu")(torch.zeros(1, 3)).tolist() == [[0, 1, 2]]
    model = load(path, "cpu")
    assert pin(model, "meta") == 1
    assert 'value="cpu"' not in str(model.graph)
    assert model(torch.zeros(1, 3, device="meta")).device.type == "meta"


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_without_a_gpu_auto_means_the_cpu_and_cuda_fails_at_once(path):
    tried = []
    model, device = load_where_it_answers(path, "auto", lambda m, d: tried.append(d), print)
    assert (device, tried) == ("cpu", ["cpu"])
    assert model(torch.zeros(1, 1)).tolist() == [[0]]
    with pytest.raises((RuntimeError, AssertionError)):
        load_where_it_answers(path, "cuda", lambda m, d: tried.append(d), print)


def test_a_gpu_on_which_the_model_does_not_answer_is_given_up(path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    warned = []

    def answers(model, device):
        if device == "cuda":
            raise RuntimeError("out of memory")

    _, device = load_where_it_answers(path, "auto", answers, warned.append)
    assert device == "cpu"
    assert "served from the CPU" in warned[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_answers_what_the_cpu_answers(path):
    x = torch.zeros(2, 5)
    assert torch.equal(load(path, "cuda")(x.cuda()).cpu(), load(path, "cpu")(x))
