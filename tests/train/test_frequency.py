from __future__ import annotations

import torch
from torch.nn import functional as F

from tokenreel.train.frequency import haar_details, haar_loss


def reference(video: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """The same bands by dilated 2-D convolutions with the outer products of [1, 1] / 2 and [1, -1] / 2."""
    mean, detail = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.5, -0.5]).double()
    frames = video.flatten(0, 2)[:, None]
    bands = []
    for level in range(levels):
        for rows, columns in ((mean, detail), (detail, mean), (detail, detail)):
            kernel = torch.outer(rows, columns)[None, None]
            bands.append(F.conv2d(frames, kernel, dilation=1 << level)[:, 0].unflatten(0, video.shape[:3]))
        frames = F.conv2d(frames, torch.outer(mean, mean)[None, None], dilation=1 << level)
    return bands


def test_bands_are_those_of_dilated_convolutions() -> None:
    video = torch.randn(2, 3, 2, 17, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = haar_details(video, 3), reference(video, 3)
    assert len(ours) == len(theirs) == 9
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other)


def test_the_loss_is_the_mean_over_the_bands() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 1, 3, 2, 16, 16, dtype=torch.float64, generator=generator)
    bands = [(a - b).abs().mean((1, 3, 4)) for a, b in zip(reference(ours, 2), reference(theirs, 2))]
    torch.testing.assert_close(haar_loss(ours, theirs, 2), torch.stack(bands).mean(0))


def test_an_edge_between_patches_is_seen_wherever_it_lies() -> None:
    theirs = torch.zeros(1, 1, 1, 32, 32)
    losses = []
    for column in (15, 16, 17):
        ours = theirs.clone()
        ours[..., column:] = 1
        losses.append(haar_loss(ours, theirs, 3))
    assert losses[0] > 0
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[1], losses[2])


def test_brightness_alone_costs_nothing() -> None:
    theirs = torch.rand(1, 3, 2, 9, 9)
    assert haar_loss(theirs + 0.25, theirs, 3).max() < 1e-6


def test_short_sides_end_the_levels() -> None:
    assert len(haar_details(torch.zeros(1, 1, 1, 4, 4), 5)) == 6
    pixel = torch.rand(1, 3, 2, 1, 1, requires_grad=True)
    loss = haar_loss(pixel, torch.zeros_like(pixel))
    loss.sum().backward()
    assert loss.tolist() == [[0.0, 0.0]]


def test_gradients_are_those_of_finite_differences() -> None:
    ours, theirs = torch.randn(2, 1, 1, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: haar_loss(x, theirs, 2), (ours.requires_grad_(),), eps=1e-7)
