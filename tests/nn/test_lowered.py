from __future__ import annotations

import pytest
import torch
from torch import nn

from tokenreel.nn.lowered import lowered

torch.set_num_threads(1)


def test_weights_are_cast_once_and_are_themselves_again() -> None:
    shared = nn.Linear(4, 3)
    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), shared, nn.Linear(3, 2, bias=False))
    before = dict(model.named_parameters())
    copies = {name: parameter.detach().clone() for name, parameter in before.items()}
    with pytest.raises(RuntimeError, match="stop"), lowered([model, shared], torch.bfloat16):
        inside = dict(model.named_parameters())
        assert {name for name, parameter in inside.items() if parameter.dtype == torch.bfloat16} == {
            "2.weight",
            "2.bias",
            "3.weight",
        }
        assert torch.equal(inside["3.weight"], copies["3.weight"].bfloat16())
        raise RuntimeError("stop")
    after = dict(model.named_parameters())
    assert all(after[name] is parameter and parameter.requires_grad for name, parameter in before.items())
    assert all(torch.equal(after[name], copy) for name, copy in copies.items())


def test_autocast_gives_the_same_with_and_without() -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)), torch.randn(5, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = model(x)
        with lowered([model], torch.bfloat16):
            assert torch.equal(model(x), wanted)
