"""Muon on CPUs: torch's own as reference, singular values, state, resuming; parameter groups and their rates."""

from __future__ import annotations

import io
import math
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.train import optim
from tokenreel.train.muon import CPUMuon, orthogonalised
from tokenreel.train.optim import OptimConfig, factor_at, make_optimizers, set_rate

torch.set_num_threads(1)

SHAPES = [(8, 8), (24, 8), (8, 40), (1, 16)]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights(seed: int = 0) -> list[nn.Parameter]:
    return [nn.Parameter(drawn(*shape, seed=seed + index)) for index, shape in enumerate(SHAPES)]


def give_gradients(parameters: list[nn.Parameter], step: int) -> None:
    for index, parameter in enumerate(parameters):
        parameter.grad = drawn(*parameter.shape, seed=1000 * step + index)


def moved(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        give_gradients(parameters, step)
        optimizer.step()


@pytest.mark.parametrize("shape", [(16, 16), (64, 16), (16, 64), (5, 200), (1, 7), (7, 1)])
def test_singular_values_land_near_1_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = drawn(*shape)
    found = orthogonalised(matrix)
    values = torch.linalg.svdvals(found)
    assert found.shape == matrix.shape
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    core = left.T @ found @ right.T
    torch.testing.assert_close(core, torch.diag(core.diagonal()), rtol=0, atol=1e-4)


def test_it_is_the_quintic_on_singular_values() -> None:
    matrix = drawn(6, 9)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    torch.testing.assert_close(orthogonalised(matrix).double(), left * values @ right, rtol=1e-4, atol=1e-4)


def test_a_tall_matrix_is_a_wide_one_transposed() -> None:
    wide = drawn(8, 24)
    torch.testing.assert_close(orthogonalised(wide.T.contiguous()), orthogonalised(wide).T, rtol=1e-5, atol=1e-5)


def test_scale_does_not_matter_and_nothing_stays_nothing() -> None:
    matrix = drawn(8, 24)
    torch.testing.assert_close(orthogonalised(matrix * 1e-3), orthogonalised(matrix), rtol=1e-4, atol=1e-4)
    assert torch.equal(orthogonalised(torch.zeros(4, 6)), torch.zeros(4, 6))
    assert orthogonalised(matrix.bfloat16()).dtype == torch.bfloat16


def test_it_moves_as_torchs_own_within_bfloat16() -> None:
    ours, theirs = weights(), weights()
    options: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9}
    one = CPUMuon(ours, **options)
    two = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options)
    start = [parameter.detach().clone() for parameter in ours]
    for step in range(4):
        for optimizer, parameters in ((one, ours), (two, theirs)):
            moved(optimizer, parameters, range(step, step + 1))
        for mine, its, before in zip(ours, theirs, start):
            far = float((its.detach() - before).norm())
            assert far > 0.01
            assert float((mine - its).detach().norm()) < 0.03 * far  # bfloat16 has 8 bits; five products of it
            assert torch.equal(one.state[mine]["momentum_buffer"], two.state[its]["momentum_buffer"])


def test_in_bfloat16_it_is_as_near() -> None:
    ours, theirs = weights(), weights()
    options: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9}
    one, two = CPUMuon(ours, dtype=torch.bfloat16, **options), CPUMuon(theirs, **options)
    for optimizer, parameters in ((one, ours), (two, theirs)):
        moved(optimizer, parameters, range(4))
    for mine, its, before in zip(ours, theirs, weights()):
        far = float((its - before).detach().norm())
        assert mine.dtype == torch.float32
        assert 0 < float((mine - its).detach().norm()) < 0.03 * far


def test_products_are_in_bfloat16_where_the_cpu_has_units_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_units, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(optim, "has_bf16", lambda device, has_units=has_units: has_units)
        _, muon = make_optimizers(Net(), OptimConfig(lr=0.1, kind="muon"))
        assert isinstance(muon, CPUMuon)
        assert muon.dtype == dtype


def test_one_step_by_hand() -> None:
    weight, gradient = drawn(4, 10), drawn(4, 10, seed=1)
    parameter = nn.Parameter(weight.clone())
    parameter.grad = gradient.clone()
    CPUMuon([parameter], lr=0.1, weight_decay=0.5, momentum=0.8).step()
    momentum = 0.2 * gradient
    update = orthogonalised(0.2 * gradient + 0.8 * momentum)
    expected = weight * (1 - 0.1 * 0.5) - 0.1 * 0.2 * math.sqrt(10) * update
    torch.testing.assert_close(parameter.detach(), expected)
    assert torch.equal(parameter.grad, gradient)


def test_an_update_has_the_size_of_adamws() -> None:
    parameter = nn.Parameter(torch.zeros(64, 192))
    parameter.grad = drawn(64, 192)
    CPUMuon([parameter], lr=1.0, weight_decay=0.0).step()
    assert float(parameter.detach().square().mean().sqrt()) == pytest.approx(0.2, rel=0.2)


def test_weights_without_a_gradient_stay() -> None:
    ours = weights()
    before = [parameter.detach().clone() for parameter in ours]
    optimizer = CPUMuon(ours, lr=0.1)
    give_gradients(ours, 0)
    ours[1].grad = None
    optimizer.step()
    assert torch.equal(ours[1], before[1])
    assert not torch.equal(ours[0], before[0])
    assert ours[1] not in optimizer.state


def test_its_state_goes_through_a_file_and_resumes_exactly() -> None:
    whole, first = weights(), weights()
    moved(CPUMuon(whole, lr=0.05), whole, range(6))
    optimizer = CPUMuon(first, lr=0.05)
    moved(optimizer, first, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = deepcopy(first)
    resumed = CPUMuon(second, lr=9.0, momentum=0.1)
    resumed.load_state_dict(state)
    assert resumed.param_groups[0]["lr"] == 0.05
    for parameter, before in zip(second, first):
        assert torch.equal(resumed.state[parameter]["momentum_buffer"], optimizer.state[before]["momentum_buffer"])
    moved(resumed, second, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(whole, second))


# Groups and rates.


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.leave = nn.Linear(8, 6)


def rates_of(module: nn.Module, optimizers: list[torch.optim.Optimizer], field: str = "max_lr") -> dict[str, float]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        names[id(parameter)]: group[field]
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_each_part_has_its_rate_and_set_rate_scales_them_all(kind: Any) -> None:
    net = Net()
    config = OptimConfig(lr=0.1, kind=kind, rates={"enter": 0.5, "blocks.1": 0.25, "leave.bias": 0.0})
    optimizers = make_optimizers(net, config)
    expected = {
        "enter.weight": 0.05,
        "enter.bias": 0.05,
        "blocks.0.weight": 0.1,
        "blocks.0.bias": 0.1,
        "blocks.1.weight": 0.025,
        "blocks.1.bias": 0.025,
        "leave.weight": 0.1,
        "leave.bias": 0.0,
    }
    assert rates_of(net, optimizers) == pytest.approx(expected)
    set_rate(optimizers, 0.4)
    assert rates_of(net, optimizers, "lr") == pytest.approx({name: 0.4 * rate for name, rate in expected.items()})
    assert rates_of(net, optimizers) == pytest.approx(expected)


def test_the_first_name_that_fits_counts() -> None:
    net = Net()
    optimizers = make_optimizers(net, OptimConfig(lr=1.0, rates={"blocks.1": 0.5, "blocks": 0.1}))
    rates = rates_of(net, optimizers)
    assert rates["blocks.1.weight"] == 0.5
    assert rates["blocks.0.weight"] == 0.1


def test_muon_takes_the_matrices_of_blocks_alone() -> None:
    net = Net()
    adamw, muon = make_optimizers(net, OptimConfig(lr=0.1, kind="muon", weight_decay=0.3))
    assert isinstance(muon, CPUMuon)
    assert set(rates_of(net, [muon])) == {"blocks.0.weight", "blocks.1.weight"}
    assert {group["weight_decay"] for group in muon.param_groups} == {0.3}
    decays = rates_of(net, [adamw], "weight_decay")
    assert decays["enter.weight"] == decays["leave.weight"] == 0.3
    assert decays["enter.bias"] == decays["blocks.0.bias"] == 0.0


def test_a_rate_of_0_keeps_a_part_as_it_is() -> None:
    net = Net()
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    optimizers = make_optimizers(net, OptimConfig(lr=0.1, kind="muon", rates={"enter": 0.0, "blocks.0": 0.0}))
    set_rate(optimizers, 1.0)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith(("enter", "blocks.0")), name


def test_names_that_fit_nothing_and_negative_rates_are_refused() -> None:
    with pytest.raises(InputError, match="rates names 'block_0'"):
        make_optimizers(Net(), OptimConfig(lr=0.1, rates={"block_0": 0.5}))
    for rate in (-0.1, math.nan):
        with pytest.raises(InputError, match="rates must be at least 0"):
            OptimConfig(lr=0.1, rates={"enter": rate})
    with pytest.raises(InputError, match="kind must be one of adamw, muon"):
        OptimConfig(lr=0.1, kind="sgd")  # type: ignore[arg-type]


def test_the_rate_over_time_is_between_its_ends() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=4, final_share=0.2)
    factors = [factor_at(step, 20, config) for step in range(21)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[-1] == pytest.approx(0.2)
    assert all(after < before for before, after in pairwise(factors[4:]))
