from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tokenreel.errors import InputError
from tokenreel.nn.mlp import Mlp

torch.set_num_threads(1)


@pytest.mark.parametrize("kind", ["gelu", "swiglu", "geglu"])
def test_with_and_without_gradients_it_is_the_equation(kind: str) -> None:
    mlp = Mlp(dim=6, mlp_dim=10, kind=kind)  # type: ignore[arg-type]
    x = torch.randn(3, 70, 6)
    hidden = F.linear(x, mlp.into.weight, mlp.into.bias)
    act = F.silu if kind == "swiglu" else F.gelu
    expected = mlp.out(act(hidden) if kind == "gelu" else act(hidden[..., :10]) * hidden[..., 10:])
    torch.testing.assert_close(mlp(x), expected)
    kept = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), expected)
        torch.testing.assert_close(mlp(x.transpose(0, 1)), expected.transpose(0, 1))
        assert mlp(x[:0]).shape == (0, 70, 6)
    assert torch.equal(x, kept)


def test_many_rows_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = Mlp(dim=6, mlp_dim=10, kind="swiglu")
    x = torch.randn(200, 6)
    with torch.no_grad():
        whole = mlp(x)
        monkeypatch.setattr("tokenreel.nn.mlp._HIDDEN_VALUES", 20 * 64)
        torch.testing.assert_close(mlp(x), whole)


@pytest.mark.parametrize("kind", ["gelu", "swiglu", "geglu"])
def test_gradients_in_float64(kind: str) -> None:
    mlp = Mlp(dim=3, mlp_dim=4, kind=kind).double()  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(mlp, torch.randn(2, 3, dtype=torch.float64, requires_grad=True))


def test_bad_options() -> None:
    with pytest.raises(InputError, match="'relu'"):
        Mlp(dim=3, mlp_dim=4, kind="relu")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="got 3 and 0"):
        Mlp(dim=3, mlp_dim=0, kind="gelu")
