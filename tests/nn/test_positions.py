from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tokenreel.errors import InputError
from tokenreel.nn.positions import ContinuousBias, LearnedPositions, PositionGenerator, SinCosPositions
from tokenreel.patches.positions import sincos_2d, sincos_3d
from tokenreel.types import Grid

torch.set_num_threads(1)


def test_learned_positions_stretch_only_when_asked() -> None:
    table = LearnedPositions(grid=(2, 4, 4), dim=8, interpolate=True)
    assert torch.equal(table((2, 4, 4)), table.table_thwD.reshape(32, 8))
    assert table((3, 5, 2)).shape == (30, 8)
    with torch.no_grad():
        table.table_thwD.copy_(torch.ones(2, 4, 4, 8))
    torch.testing.assert_close(table((1, 9, 3)), torch.ones(27, 8))
    table((1, 2, 2)).sum().backward()
    assert table.table_thwD.grad is not None
    with pytest.raises(InputError, match=r"\(2, 2, 2\), got \(1, 2, 2\)"):
        LearnedPositions(grid=(2, 2, 2), dim=4)((1, 2, 2))
    with pytest.raises(InputError, match="at least 1"):
        LearnedPositions(grid=(0, 2, 2), dim=4)


def test_sin_cos_is_the_table_of_patches() -> None:
    grid = Grid(t=3, h=2, w=4)
    ours = SinCosPositions(dim=20)((3, 2, 4), first_t=2)
    torch.testing.assert_close(ours, torch.from_numpy(sincos_3d(grid, 20, first_t=2)), rtol=1e-6, atol=1e-6)
    flat = SinCosPositions(dim=16, spatial=True)((3, 2, 4))
    torch.testing.assert_close(flat, torch.from_numpy(sincos_2d(grid, 16)), rtol=1e-6, atol=1e-6)
    assert torch.equal(flat[:8], flat[8:16])
    with pytest.raises(InputError, match="got 7"):
        SinCosPositions(dim=7)
    with pytest.raises(InputError, match="divisible by 4, got 6"):
        SinCosPositions(dim=6, spatial=True)


def test_continuous_bias_is_its_network_on_log_spaced_differences() -> None:
    torch.manual_seed(0)
    bias = ContinuousBias(num_heads=3, hidden_dim=16)
    t, h, w = grid = (2, 3, 2)
    out = bias(grid)
    cells = [(a, b, c) for a in range(t) for b in range(h) for c in range(w)]
    expected = torch.empty(3, len(cells), len(cells))
    for i, query in enumerate(cells):
        for j, key in enumerate(cells):
            spaced = [math.copysign(math.log1p(abs(a - b)), a - b) for a, b in zip(query, key)]
            expected[:, i, j] = bias.layers(torch.tensor(spaced))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in bias.parameters())
    with pytest.raises(InputError, match="got 0, 128"):
        ContinuousBias(num_heads=0)


@pytest.mark.parametrize("causal", [True, False])
def test_the_position_generator_is_the_direct_convolution(causal: bool) -> None:
    peg = PositionGenerator(dim=6, causal=causal)
    x = torch.randn(2, 4, 5, 3, 6)
    padded = F.pad(x.permute(0, 4, 1, 2, 3), (1, 1, 1, 1, 2 if causal else 1, 0 if causal else 1))
    direct = F.conv3d(padded, peg.conv.weight, peg.conv.bias, groups=6).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(peg(x), x + direct)
    by_hand = peg.conv.bias.clone()
    for dt in range(3):
        source = 2 - (2 if causal else 1) + dt
        for dy in range(3):
            for dx in range(3):
                by_hand = by_hand + peg.conv.weight[:, 0, dt, dy, dx] * x[1, source, 1 + dy, dx]
    torch.testing.assert_close(peg(x)[1, 2, 2, 1], x[1, 2, 2, 1] + by_hand)


@pytest.mark.parametrize("dim", [3, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_later_frames_change_no_earlier_output_bit_for_bit(dim: int, dtype: torch.dtype) -> None:
    peg = PositionGenerator(dim=dim, causal=True).to(dtype)
    x = torch.randn(2, 6, 4, 5, dim).to(dtype)
    before = peg(x)
    for frame in range(1, 6):
        edited = x.clone()
        edited[:, frame] += 10
        after = peg(edited)
        assert torch.equal(before[:, :frame], after[:, :frame])
        assert not torch.equal(before[:, frame], after[:, frame])


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_a_stream_of_frames_equals_one_pass(kernel_size: int, chunk: int) -> None:
    peg = PositionGenerator(dim=4, causal=True, kernel_size=kernel_size)
    x = torch.randn(1, 7, 3, 3, 4)
    past, outputs = None, []
    for part in x.split(chunk, dim=1):
        out, past = peg.step(part, past)
        assert past.shape[1] == kernel_size - 1
        outputs.append(out)
    torch.testing.assert_close(torch.cat(outputs, 1), peg(x), rtol=1e-6, atol=1e-6)


def test_a_generator_refuses_what_it_cannot_do() -> None:
    with pytest.raises(InputError, match="got 4"):
        PositionGenerator(dim=3, causal=True, kernel_size=4)
    with pytest.raises(InputError, match=r"\(B, t, h, w, 3\), got \(1, 2, 3\)"):
        PositionGenerator(dim=3, causal=True)(torch.zeros(1, 2, 3))
    with pytest.raises(InputError, match="causal=False"):
        PositionGenerator(dim=3, causal=False).step(torch.zeros(1, 1, 1, 1, 3), None)
