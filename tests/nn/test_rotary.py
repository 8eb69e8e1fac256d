from __future__ import annotations

import math

import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.nn.rotary import Rotary, bands_of, grid_positions, rotate

torch.set_num_threads(1)

BANDS = """\
axis extent bands  fastest  slowest  turns over the extent
   t     16    11   1.0000   0.3927   2.55 .. 1.00
   h     64    11   1.0000   0.0982  10.19 .. 1.00
   w     64    10   1.0000   0.0982  10.19 .. 1.00"""


def test_bands_as_a_table() -> None:
    extents = (16, 64, 64)
    rotary = Rotary(head_dim=64, max_extents=extents)
    lines = ["axis extent bands  fastest  slowest  turns over the extent"]
    for name, extent, bands in zip("thw", extents, rotary.bands):
        turns = [band * extent / (2 * math.pi) for band in (bands[0], bands[-1])]
        lines.append(
            f"{name:>4} {extent:6} {len(bands):5} {bands[0]:8.4f} {bands[-1]:8.4f} {turns[0]:6.2f} .. {turns[1]:.2f}"
        )
    assert "\n".join(lines) == BANDS


@pytest.mark.parametrize("extent", [1, 2, 5, 16, 64, 4096])
@pytest.mark.parametrize("count", [1, 2, 10])
def test_no_band_is_constant_none_aliases_and_none_repeats(extent: int, count: int) -> None:
    bands = bands_of(count, extent)
    assert len(set(bands)) == count
    assert bands[0] == 1.0
    assert all(2 * math.pi / max(extent, 13) * (1 - 1e-9) <= band < math.pi for band in bands)
    ratios = [a / b for a, b in zip(bands[1:], bands)]
    assert all(ratio == pytest.approx(ratios[0]) for ratio in ratios)


def test_scores_depend_on_differences_only() -> None:
    rotary = Rotary(head_dim=24, max_extents=(8, 16, 16))
    q, k = torch.randn(2, 1, 1, 24).double()
    positions = torch.randint(0, 16, (40, 3))
    shift = torch.tensor([5, 3, 11])

    def score(at_q: torch.Tensor, at_k: torch.Tensor) -> torch.Tensor:
        return (rotate(q, rotary(at_q)) * rotate(k, rotary(at_k))).sum(-1)

    apart = positions.flip(0)
    torch.testing.assert_close(score(positions, apart), score(positions + shift, apart + shift), rtol=1e-5, atol=1e-5)
    zero = torch.zeros(40, 3)
    torch.testing.assert_close(score(positions, apart), score(positions - apart, zero), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(score(positions, apart), score(positions, apart + shift))


def test_over_one_axis_m_rope_is_rope() -> None:
    x = torch.randn(9, 2, 24)
    places = torch.arange(9)[:, None]
    one = Rotary(head_dim=24, max_extents=(16,))
    three = Rotary(head_dim=24, max_extents=(16, 8, 8), num_bands=(12, 0, 0))
    other = torch.randint(0, 8, (9, 2))
    assert torch.equal(rotate(x, one(places)), rotate(x, three(torch.cat([places, other], 1))))
    # Standing still along h and w, an even split turns the bands of t as RoPE of a third of the width, the rest not.
    even = Rotary(head_dim=24, max_extents=(16, 8, 8))
    turned = rotate(x, even(torch.cat([places, torch.zeros_like(other)], 1)))
    own = [0, 1, 2, 3, 12, 13, 14, 15]
    small = Rotary(head_dim=8, max_extents=(16,))
    torch.testing.assert_close(turned[..., own], rotate(x[..., own], small(places)))
    rest = [channel for channel in range(24) if channel not in own]
    assert torch.equal(turned[..., rest], x[..., rest])


def test_rotation_is_the_complex_product_and_keeps_length() -> None:
    x = torch.randn(2, 7, 3, 8)
    rotation = Rotary(head_dim=8, max_extents=(32,))(torch.arange(7)[:, None])
    angle = torch.complex(rotation.cos_Lf, rotation.sin_Lf)[:, None]
    expected = torch.complex(x[..., :4], x[..., 4:]) * angle
    out = rotate(x, rotation)
    torch.testing.assert_close(out, torch.cat([expected.real, expected.imag], -1))
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1))


def test_angles_stay_exact_far_away_and_in_half_precision() -> None:
    rotary = Rotary(head_dim=8, max_extents=(32,)).bfloat16()
    far = rotary(torch.tensor([[100_003]]))
    assert far.cos_Lf.dtype == torch.float32
    expected = [math.cos(100_003 * band) for band in rotary.bands[0]]
    torch.testing.assert_close(far.cos_Lf[0], torch.tensor(expected), rtol=1e-6, atol=1e-6)
    x = torch.randn(1, 2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = rotate(x.bfloat16(), far)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, rotate(x.bfloat16().float(), far).bfloat16())


def test_grid_positions_are_row_major_and_shift_in_time() -> None:
    places = grid_positions(2, 3, 4, first_t=5)
    assert places.shape == (24, 3)
    assert places[0].tolist() == [5, 0, 0]
    assert places[1].tolist() == [5, 0, 1]
    assert places[-1].tolist() == [6, 2, 3]


def test_bad_sizes_say_both_numbers() -> None:
    with pytest.raises(InputError, match="got 7"):
        Rotary(head_dim=7, max_extents=(4,))
    with pytest.raises(InputError, match="at least 1 an axis"):
        Rotary(head_dim=8, max_extents=())
    with pytest.raises(InputError, match="4 bands in all"):
        Rotary(head_dim=8, max_extents=(4, 4), num_bands=(1, 2))
    with pytest.raises(InputError, match="expected 2 positions"):
        Rotary(head_dim=8, max_extents=(4, 4))(torch.zeros(3, 3))
