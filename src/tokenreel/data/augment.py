"""Random changes of videos and volumes before a classifier learns from them, mixup, and soft labels.

Everything works on batches of floats in [-1, 1], (B, C, T, H, W), each example changed on its own, and on one video
(C, T, H, W). Every draw comes from a generator: equal generators give equal bytes. With all strengths 0 the values
come back as they were. What leaves the picture is filled from its edge.

Letters: B batch, C channels, T frames (or slices), H W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from tokenreel.errors import InputError

__all__ = ["VideoAugment", "VolumeAugment", "mixup", "soft_labels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoAugment:
    """Changes of a video; one draw for all its frames, so that motion stays.

    Attributes:
        crop: a window of 1 - crop to 1 of both sides, anywhere, enlarged to the whole.
        shift: by at most this part of each side, in whole pixels.
        rotate_degrees: at most, either way, about the middle.
        flip: how often left and right change places; 0 for classes that differ in it.
        brightness: at most this much is added, on [-1, 1].
        contrast, saturation: differences from the mean, from grey, times 1 - strength to 1 + strength.
        time_crop: a stretch of 1 - time_crop to 1 of the frames, anywhere, slowed down to their number.
    """

    crop: float = 0.0
    shift: float = 0.0
    rotate_degrees: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    time_crop: float = 0.0

    def __post_init__(self) -> None:
        _check_strengths(self)

    def __call__(self, video: Tensor, *, generator: torch.Generator) -> Tensor:
        """The changed video, of the same shape and type.

        Args:
            video: float (B, C, T, H, W) or (C, T, H, W) in [-1, 1].
        """
        video_BCTHW = _batched(video)
        if self.time_crop:
            video_BCTHW = _time_cropped(video_BCTHW, self.time_crop, generator)
        if self.crop or self.shift or self.rotate_degrees:
            video_BCTHW = self._moved(video_BCTHW, generator)
        if self.flip:
            video_BCTHW = _flipped(video_BCTHW, 4, self.flip, generator)
        if self.brightness or self.contrast or self.saturation:
            video_BCTHW = self._coloured(video_BCTHW, generator)
        return video_BCTHW if video.ndim == 5 else video_BCTHW[0]

    def _moved(self, video_BCTHW: Tensor, generator: torch.Generator) -> Tensor:
        num, _, num_frames, height, width = video_BCTHW.shape
        scale_B = 1 - self.crop * _uniform(num, video_BCTHW, generator)
        angle_B = math.radians(self.rotate_degrees) * _signed(num, video_BCTHW, generator)
        centres = []
        for side in (width, height):
            room_B = (1 - scale_B) * _signed(num, video_BCTHW, generator)
            centres.append(room_B + _pixels(self.shift, side, num, video_BCTHW, generator) * 2 / side)
        # Where each pixel of the result lies in the source, in units of half a side; angles are true at any aspect.
        cos_B, sin_B, aspect = scale_B * angle_B.cos(), scale_B * angle_B.sin(), height / width
        rows = [cos_B, -sin_B * aspect, centres[0], sin_B / aspect, cos_B, centres[1]]
        theta_B23 = rearrange(torch.stack(rows, dim=1), "b (i j) -> b i j", i=2)
        frames = rearrange(video_BCTHW, "b c t h w -> b (c t) h w")
        where = F.affine_grid(theta_B23.to(frames.dtype), list(frames.shape), align_corners=False)
        moved = F.grid_sample(frames, where, padding_mode="border", align_corners=False)
        return rearrange(moved, "b (c t) h w -> b c t h w", t=num_frames)

    def _coloured(self, video_BCTHW: Tensor, generator: torch.Generator) -> Tensor:
        num = len(video_BCTHW)
        if self.saturation and video_BCTHW.shape[1] == 3:
            red, green, blue = video_BCTHW.unbind(1)
            grey = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
            video_BCTHW = grey + (video_BCTHW - grey) * _gain(self.saturation, num, video_BCTHW, generator)
        return _toned(video_BCTHW, self.brightness, self.contrast, generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeAugment:
    """Changes of a volume: a stiff motion in space, mirrors, intensity.

    Attributes:
        shift: by at most this part of each side, in whole voxels.
        rotate_degrees: at most, either way, about each of the three axes.
        zoom: sides times 1 / (1 + zoom) to 1 + zoom.
        flip: how often each axis (T, H, W) is mirrored; 0 for classes that differ in it (a left and a right kidney).
        brightness, contrast: as in ``VideoAugment``.
        noise: standard deviation of what is added to every voxel.
    """

    shift: float = 0.0
    rotate_degrees: float = 0.0
    zoom: float = 0.0
    flip: tuple[float, float, float] = (0.0, 0.0, 0.0)
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        _check_strengths(self)

    def __call__(self, volume: Tensor, *, generator: torch.Generator) -> Tensor:
        """The changed volume, of the same shape and type.

        Args:
            volume: float (B, C, T, H, W) or (C, T, H, W) in [-1, 1].
        """
        volume_BCTHW = _batched(volume)
        if self.shift or self.rotate_degrees or self.zoom:
            volume_BCTHW = self._moved(volume_BCTHW, generator)
        for axis, often in zip((2, 3, 4), self.flip):
            if often:
                volume_BCTHW = _flipped(volume_BCTHW, axis, often, generator)
        if self.brightness or self.contrast:
            volume_BCTHW = _toned(volume_BCTHW, self.brightness, self.contrast, generator)
        if self.noise:
            drawn = torch.randn(volume_BCTHW.shape, generator=generator, device=generator.device)
            volume_BCTHW = (volume_BCTHW + self.noise * drawn.to(volume_BCTHW)).clamp(-1, 1)
        return volume_BCTHW if volume.ndim == 5 else volume_BCTHW[0]

    def _moved(self, volume_BCTHW: Tensor, generator: torch.Generator) -> Tensor:
        num, sides = len(volume_BCTHW), volume_BCTHW.shape[:1:-1]  # W, H, T: the order x, y, z of affine_grid
        turn_B33 = torch.eye(3, dtype=volume_BCTHW.dtype, device=volume_BCTHW.device).expand(num, 3, 3)
        for first, second in ((0, 1), (0, 2), (1, 2)):
            angle_B = math.radians(self.rotate_degrees) * _signed(num, volume_BCTHW, generator)
            turn_B33 = turn_B33 @ _plane_turn(angle_B, first, second)
        zoom_B = torch.exp(math.log1p(self.zoom) * _signed(num, volume_BCTHW, generator))
        size_3 = volume_BCTHW.new_tensor(sides)
        turn_B33 = turn_B33 * (size_3 / size_3[:, None]) / zoom_B[:, None, None]
        shifts = [_pixels(self.shift, side, num, volume_BCTHW, generator) * 2 / side for side in sides]
        theta_B34 = torch.cat([turn_B33, torch.stack(shifts, dim=1)[..., None]], dim=2)
        where = F.affine_grid(theta_B34, list(volume_BCTHW.shape), align_corners=False)
        return F.grid_sample(volume_BCTHW, where, padding_mode="border", align_corners=False)


def mixup(
    video_BCTHW: Tensor, labels: Mapping[str, Tensor], *, alpha: float, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Each example mixed with another of its batch: x = l x_i + (1 - l) x_j, y likewise, l from Beta(alpha, alpha).

    Zhang et al. 2018 (arXiv 1710.09412), equation 1; one l an example. ``alpha`` 0 changes nothing.

    Args:
        labels: head -> probabilities (B, K), of ``soft_labels``.

    Returns:
        Videos, labels, and (B,) the number of the example that each was mixed with.

    Raises:
        InputError: ``alpha`` is below 0, or labels are no probabilities of this batch.
    """
    if not 0 <= alpha < math.inf:
        raise InputError(f"alpha must be at least 0, got {alpha}; 0.2 to 0.8 are usual")
    for head, probs in labels.items():
        if probs.ndim != 2 or len(probs) != len(video_BCTHW) or not probs.is_floating_point():
            raise InputError(
                f"labels of {head} must be float (B, K) for {len(video_BCTHW)} examples, got {probs.dtype} "
                f"{tuple(probs.shape)}; make them with soft_labels"
            )
    if not alpha:
        return video_BCTHW, dict(labels), torch.arange(len(video_BCTHW))
    # torch draws Beta from its global generator only; numpy's is seeded by ours.
    seed = torch.randint(1 << 62, (1,), generator=generator, device=generator.device)
    share_B = torch.from_numpy(np.random.default_rng(int(seed)).beta(alpha, alpha, len(video_BCTHW)))
    other_B = torch.randperm(len(video_BCTHW), generator=generator, device=generator.device)

    def mixed(values: Tensor) -> Tensor:
        share = _column(share_B, values.ndim).to(values)
        return share * values + (1 - share) * values[other_B.to(values.device)]

    return mixed(video_BCTHW), {head: mixed(probs) for head, probs in labels.items()}, other_B.cpu()


def soft_labels(targets_B: Tensor, num_classes: int, *, smoothing: float = 0.0) -> Tensor:
    """Class numbers as probabilities, float32 (B, K): (1 - e) for the class, and e / K for each.

    Szegedy et al. 2016 (arXiv 1512.00567), section 7. ``smoothing`` 0 gives exact ones and zeros.

    Raises:
        InputError: ``smoothing`` outside [0, 1], or a number outside [0, num_classes).

    >>> soft_labels(torch.tensor([1]), 4, smoothing=0.2).tolist()
    [[0.05000000074505806, 0.8500000238418579, 0.05000000074505806, 0.05000000074505806]]
    """
    if not 0 <= smoothing <= 1:
        raise InputError(f"smoothing must lie in [0, 1], got {smoothing}; 0.1 is usual")
    if targets_B.numel() and not (int(targets_B.min()) >= 0 and int(targets_B.max()) < num_classes):
        raise InputError(
            f"class numbers must lie in [0, {num_classes}), got {int(targets_B.min())} to {int(targets_B.max())}"
        )
    return F.one_hot(targets_B.long(), num_classes).float() * (1 - smoothing) + smoothing / num_classes


def _check_strengths(augment: VideoAugment | VolumeAugment) -> None:
    for field in fields(augment):
        value = getattr(augment, field.name)
        most = 180.0 if field.name == "rotate_degrees" else 1.0
        for strength in value if isinstance(value, tuple) else (value,):
            if not 0 <= strength <= most or (field.name in ("crop", "time_crop") and strength == 1):
                raise InputError(
                    f"{type(augment).__name__}.{field.name} must lie in [0, {most:g}] (crops below 1), got {value}"
                )


def _batched(video: Tensor) -> Tensor:
    if video.ndim not in (4, 5) or not video.is_floating_point() or not video.numel():
        raise InputError(
            f"augmentation takes float (B, C, T, H, W) or (C, T, H, W) in [-1, 1], got {video.dtype} "
            f"{tuple(video.shape)}; convert frames with to_video"
        )
    return video if video.ndim == 5 else video[None]


def _uniform(num: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(num, generator=generator, device=generator.device).to(like)


def _signed(num: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return _uniform(num, like, generator) * 2 - 1


def _pixels(share: float, side: int, num: int, like: Tensor, generator: torch.Generator) -> Tensor:
    most = round(share * side)
    return torch.randint(-most, most + 1, (num,), generator=generator, device=generator.device).to(like)


def _column(values_B: Tensor, ndim: int) -> Tensor:
    return values_B.reshape(-1, *[1] * (ndim - 1))


def _gain(strength: float, num: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return _column(1 + strength * _signed(num, like, generator), like.ndim)


def _flipped(video_BCTHW: Tensor, axis: int, often: float, generator: torch.Generator) -> Tensor:
    is_turned_B = _uniform(len(video_BCTHW), video_BCTHW, generator) < often
    return torch.where(_column(is_turned_B, 5), video_BCTHW.flip(axis), video_BCTHW)


def _toned(video_BCTHW: Tensor, brightness: float, contrast: float, generator: torch.Generator) -> Tensor:
    num = len(video_BCTHW)
    if contrast:
        mean = video_BCTHW.mean(dim=(1, 2, 3, 4), keepdim=True)
        video_BCTHW = mean + (video_BCTHW - mean) * _gain(contrast, num, video_BCTHW, generator)
    if brightness:
        video_BCTHW = video_BCTHW + _column(brightness * _signed(num, video_BCTHW, generator), 5)
    return video_BCTHW.clamp(-1, 1)


def _time_cropped(video_BCTHW: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    num, num_frames = len(video_BCTHW), video_BCTHW.shape[2]
    length_B = num_frames * (1 - strength * _uniform(num, video_BCTHW, generator))
    start_B = (num_frames - length_B) * _uniform(num, video_BCTHW, generator)
    middle_T = (torch.arange(num_frames, device=video_BCTHW.device) + 0.5) / num_frames
    frames_BT = (start_B[:, None] + length_B[:, None] * middle_T).long().clamp(0, num_frames - 1)
    rows_B1 = torch.arange(num, device=video_BCTHW.device)[:, None]
    return rearrange(video_BCTHW[rows_B1, :, frames_BT], "b t c h w -> b c t h w")


def _plane_turn(angle_B: Tensor, first: int, second: int) -> Tensor:
    """(B, 3, 3): a turn in the plane of two axes."""
    turn_B33 = torch.eye(3, dtype=angle_B.dtype, device=angle_B.device).repeat(len(angle_B), 1, 1)
    turn_B33[:, first, first] = turn_B33[:, second, second] = angle_B.cos()
    turn_B33[:, first, second], turn_B33[:, second, first] = -angle_B.sin(), angle_B.sin()
    return turn_B33
