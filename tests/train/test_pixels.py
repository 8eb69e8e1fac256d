from __future__ import annotations

import numpy as np
import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.train.pixels import (
    charbonnier,
    check_pair,
    fill_frames,
    frames_mean,
    l1,
    l2,
    neighbours_valid,
    pool_valid,
    temporal,
)


def pair(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = torch.rand(2, *shape, generator=generator, dtype=torch.float64) * 2 - 1
    return ours, theirs


def test_each_is_its_formula() -> None:
    ours, theirs = pair(2, 3, 4, 5, 7)
    d = (ours - theirs).numpy()
    axes = (1, 3, 4)
    np.testing.assert_allclose(l1(ours, theirs), np.abs(d).mean(axes))
    np.testing.assert_allclose(l2(ours, theirs), (d * d).mean(axes))
    np.testing.assert_allclose(charbonnier(ours, theirs, 0.1), (np.sqrt(d * d + 0.01) - 0.1).mean(axes))
    np.testing.assert_allclose(temporal(ours, theirs), np.abs(np.diff(d, axis=2)).mean(axes))


def test_charbonnier_has_its_closed_gradient_and_none_at_zero() -> None:
    ours, theirs = pair(1, 3, 2, 4, 4)
    ours.view(-1)[0] = theirs.view(-1)[0]
    ours.requires_grad_()
    charbonnier(ours, theirs, 1e-3).sum().backward()
    d = (ours - theirs).detach()
    expected = d / (d.square() + 1e-6).sqrt() / (3 * 4 * 4)
    torch.testing.assert_close(ours.grad, expected)
    assert ours.grad is not None
    assert ours.grad.view(-1)[0] == 0


@pytest.mark.parametrize("loss", [l2, charbonnier, l1, temporal])
def test_gradients_are_those_of_finite_differences(loss) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = pair(1, 2, 3, 2, 3)
    assert torch.autograd.gradcheck(lambda x: loss(x, theirs), (ours.requires_grad_(),), eps=1e-7)


def test_flicker_is_seen_where_the_pixels_are_equally_far() -> None:
    theirs = torch.zeros(1, 3, 6, 4, 4)
    steady = theirs + 0.1
    flicker = theirs + 0.1 * torch.tensor([1.0, -1, 1, -1, 1, -1])[:, None, None]
    assert torch.equal(l1(steady, theirs), l1(flicker, theirs))
    assert temporal(steady, theirs).abs().max() == 0
    torch.testing.assert_close(temporal(flicker, theirs), torch.full((1, 5), 0.2))


def test_one_frame_has_no_temporal_loss_but_a_gradient() -> None:
    ours = torch.rand(2, 3, 1, 4, 4, requires_grad=True)
    loss = frames_mean(temporal(ours, torch.zeros_like(ours)), neighbours_valid(torch.ones(2, 1, dtype=torch.bool)))
    loss.backward()
    assert loss == 0
    assert ours.grad is not None
    assert ours.grad.abs().max() == 0


def test_means_are_over_the_valid_frames_only() -> None:
    loss = torch.tensor([[1.0, 2.0, float("nan")], [4.0, float("inf"), 9.0]])
    valid = torch.tensor([[True, True, False], [True, False, False]])
    assert frames_mean(loss, valid) == pytest.approx(7 / 3)
    assert frames_mean(loss, torch.zeros_like(valid)) == 0
    assert frames_mean(torch.ones(2, 3), None) == 1


def test_masks_follow_neighbours_and_stretches() -> None:
    valid = torch.tensor([[True, True, False, False, True]])
    assert neighbours_valid(valid).tolist() == [[True, False, False, False]]  # type: ignore[union-attr]
    assert pool_valid(valid, 5) is valid
    assert pool_valid(valid[:, :4], 2).tolist() == [[True, False]]  # type: ignore[union-attr]
    assert pool_valid(valid, 1).tolist() == [[True]]  # type: ignore[union-attr]
    assert pool_valid(None, 2) is None


def test_frames_that_are_not_valid_become_grey_and_bf16_becomes_fp32() -> None:
    video = torch.full((1, 3, 2, 2, 2), float("nan"), dtype=torch.bfloat16)
    video[:, :, 0] = 0.5
    filled = fill_frames(video, torch.tensor([[True, False]]))
    assert filled.dtype == torch.float32
    assert (filled[:, :, 0] == 0.5).all()
    assert (filled[:, :, 1] == 0).all()


def test_what_does_not_fit_is_refused() -> None:
    video = torch.zeros(2, 3, 4, 5, 6)
    for ours, theirs, valid, message in (
        (video, video[:, :, :3], None, "one shape"),
        (video[0], video[0], None, "reconstruction must be float"),
        (video, video.int(), None, "target must be float"),
        (video, video, torch.ones(2, 5, dtype=torch.bool), r"valid_frames must be bool .*\(2, 4\)"),
        (video, video, torch.ones(2, 4), "valid_frames must be bool"),
    ):
        with pytest.raises(InputError, match=message):
            check_pair(ours, theirs, valid)
