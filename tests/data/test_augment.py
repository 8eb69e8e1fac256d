from __future__ import annotations

from itertools import permutations, product

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from tokenreel.data import augment
from tokenreel.data.augment import VideoAugment, VolumeAugment, mixup, soft_labels
from tokenreel.errors import InputError

STRONG = {
    "video": VideoAugment(crop=0.3, shift=0.1, rotate_degrees=20, flip=0.5, brightness=0.2, contrast=0.3,
                          saturation=0.3, time_crop=0.5),
    "volume": VolumeAugment(shift=0.1, rotate_degrees=30, zoom=0.2, flip=(0.5, 0.5, 0.5), brightness=0.1,
                            contrast=0.2, noise=0.05),
}  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=seeded(seed)) * 2 - 1


@pytest.mark.parametrize("change", [VideoAugment(), VolumeAugment()])
def test_no_strength_changes_nothing(change) -> None:
    generator = seeded()
    state = generator.get_state()
    batch, video = noise(3, 3, 4, 6, 5), noise(1, 4, 6, 5)
    assert change(batch, generator=generator) is batch
    assert torch.equal(change(video, generator=generator), video)
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("change", STRONG.values(), ids=list(STRONG))
def test_equal_generators_give_equal_bytes(change) -> None:
    batch = noise(4, 3, 6, 12, 10)
    kept = batch.clone()
    first = change(batch, generator=seeded(7))
    assert (first.shape, first.dtype) == (batch.shape, batch.dtype)
    assert torch.equal(first, change(batch, generator=seeded(7)))
    assert not torch.equal(first, change(batch, generator=seeded(8)))
    assert torch.equal(batch, kept)  # what comes in is left alone
    assert first.min() >= -1
    assert first.max() <= 1
    alone = change(batch[:1], generator=seeded(7))
    assert torch.equal(change(batch[0], generator=seeded(7)), alone[0])
    assert not torch.equal(first[0] - batch[0], first[1] - batch[1])


def test_flips_are_exact_and_as_often_as_asked() -> None:
    video = noise(400, 1, 1, 2, 3)
    assert torch.equal(VideoAugment(flip=1.0)(video, generator=seeded()), video.flip(4))
    flipped = VideoAugment(flip=0.25)(video, generator=seeded())
    share = torch.tensor([torch.equal(a, b.flip(3)) for a, b in zip(flipped, video)]).float().mean()
    assert 0.18 < share < 0.32
    volume = noise(2, 1, 3, 4, 5)
    assert torch.equal(VolumeAugment(flip=(1.0, 0.0, 1.0))(volume, generator=seeded()), volume.flip((2, 4)))


def test_shifts_are_whole_pixels_filled_from_the_edge() -> None:
    video = noise(30, 2, 3, 10, 20)
    moved = VideoAugment(shift=0.1)(video, generator=seeded())
    padded = pad(video.flatten(1, 2), (2, 2, 1, 1), mode="replicate")
    found = set()
    for index, result in enumerate(moved.flatten(1, 2)):
        fits = [
            (down, right)
            for down, right in product(range(3), range(5))
            if torch.allclose(result, padded[index, :, down : down + 10, right : right + 20], atol=1e-5)
        ]
        assert len(fits) == 1
        found.add(fits[0])
    assert {down for down, _ in found} == {0, 1, 2}
    assert {right for _, right in found} == {0, 1, 2, 3, 4}


@pytest.fixture
def most(monkeypatch):
    """All draws from [-1, 1] give 1."""
    monkeypatch.setattr(augment, "_signed", lambda num, like, generator: torch.ones(num).to(like))


@pytest.mark.parametrize("size", [(9, 9), (8, 14), (12, 6)])
def test_rotation_is_true_at_any_aspect(most, size) -> None:
    video = noise(1, 1, 2, *size)
    turned = VideoAugment(rotate_degrees=90)(video, generator=seeded())
    side = min(size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    window = (..., slice(top, top + side), slice(left, left + side))
    assert torch.allclose(turned[window], video[window].rot90(1, (3, 4)), atol=1e-5)
    upside = VideoAugment(rotate_degrees=180)(video, generator=seeded())
    assert torch.allclose(upside, video.flip((3, 4)), atol=1e-5)


def rotations(volume_TTT: Tensor) -> list[Tensor]:
    """The 24 turns of a cube: permutations of axes with mirrors, of determinant 1."""
    found = []
    for axes, mirrors in product(permutations(range(3)), product((False, True), repeat=3)):
        is_odd = sum(axes[i] > axes[j] for i in range(3) for j in range(i + 1, 3)) % 2
        if (is_odd + sum(mirrors)) % 2 == 0:
            found.append(volume_TTT.permute(axes).flip([axis for axis in range(3) if mirrors[axis]]))
    return found


def test_turned_volumes_are_never_mirrored(most) -> None:
    volume = noise(1, 1, 5, 5, 5)
    turned = VolumeAugment(rotate_degrees=90)(volume, generator=seeded())
    assert not torch.allclose(turned, volume, atol=1e-2)
    assert len(rotations(volume[0, 0])) == 24
    assert sum(torch.allclose(turned[0, 0], one, atol=1e-4) for one in rotations(volume[0, 0])) == 1


def test_a_zoom_enlarges_about_the_middle(most) -> None:
    ramp = torch.linspace(-1, 1, 17).expand(1, 1, 17, 17, 17)
    zoomed = VolumeAugment(zoom=1.0)(ramp, generator=seeded())
    assert torch.allclose(zoomed, ramp / 2, atol=1e-5)


def test_crops_are_windows_within_the_frame() -> None:
    ramp = torch.linspace(-1, 1, 65).expand(50, 1, 1, 9, 65)
    seen = VideoAugment(crop=0.5)(ramp, generator=seeded())[:, 0, 0, 4]
    slope_B = (seen[:, 40] - seen[:, 24]) / (ramp[0, 0, 0, 0, 40] - ramp[0, 0, 0, 0, 24])
    assert slope_B.min() > 0.5 - 1e-4
    assert slope_B.max() < 1 + 1e-4
    assert slope_B.max() - slope_B.min() > 0.3
    middle_B = seen[:, 32]  # a window of scale s has its middle at most 1 - s from the middle
    assert ((middle_B.abs() - (1 - slope_B)) < 0.04).all()
    assert middle_B.abs().max() > 0.2


def test_brightness_contrast_and_saturation() -> None:
    video = noise(20, 3, 2, 4, 4) * 0.4
    lifted = VideoAugment(brightness=0.3)(video, generator=seeded()) - video
    assert torch.allclose(lifted, lifted[:, :1, :1, :1, :1].expand_as(lifted), atol=1e-6)
    assert 0.2 < lifted.abs().max() <= 0.3
    mean = video.mean(dim=(1, 2, 3, 4), keepdim=True)
    gain = (VideoAugment(contrast=0.5)(video, generator=seeded()) - mean) / (video - mean)
    assert ((gain.amin((1, 2, 3, 4)) > 0.49) & (gain.amax((1, 2, 3, 4)) < 1.51)).all()
    assert gain.std(dim=(1, 2, 3, 4)).max() < 1e-2
    grey = video[:, :1].expand_as(video)
    washed = VideoAugment(saturation=1.0)
    assert torch.allclose(washed(grey, generator=seeded()), grey, atol=1e-6)
    assert not torch.allclose(washed(video, generator=seeded()), video, atol=1e-2)
    assert torch.equal(washed(video[:, :1], generator=seeded()), video[:, :1])


def test_a_time_crop_keeps_frames_and_their_order() -> None:
    video = torch.linspace(-1, 1, 8)[None, None, :, None, None].expand(60, 1, 8, 2, 2)
    frames_BT = ((VideoAugment(time_crop=0.6)(video, generator=seeded())[:, 0, :, 0, 0] + 1) * 3.5).round().long()
    assert (frames_BT.diff(dim=1) >= 0).all()
    stretch_B = frames_BT[:, -1] - frames_BT[:, 0] + 1
    assert stretch_B.min() >= 3
    assert stretch_B.max() == 8
    assert len(frames_BT.unique(dim=0)) > 10


def test_noise_has_its_deviation() -> None:
    drawn = VolumeAugment(noise=0.1)(torch.zeros(4, 1, 16, 16, 16), generator=seeded())
    assert drawn.std() == pytest.approx(0.1, rel=0.03)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (VideoAugment, {"crop": 1.0}),
        (VideoAugment, {"flip": 1.5}),
        (VideoAugment, {"shift": -0.1}),
        (VideoAugment, {"rotate_degrees": 181}),
        (VolumeAugment, {"flip": (0.5, 0.5, 2.0)}),
        (VolumeAugment, {"noise": float("nan")}),
    ],
)
def test_strengths_are_checked(kind, wrong) -> None:
    with pytest.raises(InputError, match=f"{kind.__name__}.{next(iter(wrong))} must lie in"):
        kind(**wrong)


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3, 4, 4, 4, dtype=torch.uint8), torch.zeros(3, 4, 4)])
def test_other_tensors_are_refused(wrong) -> None:
    with pytest.raises(InputError, match="convert frames with to_video"):
        VideoAugment(flip=0.5)(wrong, generator=seeded())


def test_mixup_mixes_pixels_and_labels_alike() -> None:
    targets = torch.arange(6)
    labels = {"one": soft_labels(targets, 6), "half": soft_labels(targets // 3, 2)}
    video = labels["one"][:, :, None, None, None].expand(6, 6, 2, 3, 3)  # channel k is the probability of class k
    mixed, soft, other = mixup(video, labels, alpha=0.8, generator=seeded(3))
    assert torch.allclose(mixed[:, :, 0, 0, 0], soft["one"], atol=1e-6)
    halves = torch.stack([soft["one"][:, :3].sum(1), soft["one"][:, 3:].sum(1)], 1)
    assert torch.allclose(soft["half"], halves, atol=1e-6)
    assert torch.allclose(soft["one"].sum(1), torch.ones(6))
    assert ((soft["one"] > 0).sum(1) <= 2).all()
    assert not torch.equal(soft["one"], labels["one"])
    again, *_ = mixup(video, labels, alpha=0.8, generator=seeded(3))
    assert torch.equal(again, mixed)
    assert all(soft["one"][i, j] > 0 for i, j in enumerate(other.tolist()) if (soft["one"][i] > 0).sum() == 2)


def test_mixup_draws_from_beta() -> None:
    marks = torch.zeros(1500, 1)
    for alpha in (0.3, 2.0):
        _, soft, _ = mixup(marks, {"one": torch.eye(1500)}, alpha=alpha, generator=seeded())
        share = soft["one"].diagonal()
        assert share.mean() == pytest.approx(0.5, abs=0.03)
        assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_mixup_at_zero_and_wrong_labels() -> None:
    video, labels = noise(3, 1, 1, 2, 2), {"label": soft_labels(torch.tensor([0, 1, 1]), 2)}
    same, kept, other = mixup(video, labels, alpha=0.0, generator=seeded())
    assert same is video
    assert other.tolist() == [0, 1, 2]
    assert kept["label"] is labels["label"]
    with pytest.raises(InputError, match="alpha must be at least 0"):
        mixup(video, labels, alpha=-1.0, generator=seeded())
    with pytest.raises(InputError, match="make them with soft_labels"):
        mixup(video, {"label": torch.tensor([0, 1, 1])}, alpha=1.0, generator=seeded())


def test_soft_labels_have_their_sums() -> None:
    targets = torch.tensor([2, 0])
    assert torch.equal(soft_labels(targets, 3), torch.tensor([[0.0, 0, 1], [1, 0, 0]]))
    soft = soft_labels(targets, 3, smoothing=0.3)
    assert torch.allclose(soft, torch.tensor([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]]))
    with pytest.raises(InputError, match=r"in \[0, 2\), got 0 to 2"):
        soft_labels(targets, 2)
    with pytest.raises(InputError, match="smoothing"):
        soft_labels(targets, 3, smoothing=1.5)
