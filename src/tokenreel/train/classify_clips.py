"""Clips as a ViViT reads them: some frames, one size, changed at random in training.

Letters: B batch, C channels, T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.classify.logits import Logits
from tokenreel.classify.vivit_config import Fit, ViViTConfig
from tokenreel.data.augment import VideoAugment, VolumeAugment, mixup
from tokenreel.data.labelled import LabelledExample
from tokenreel.media.frames import Selection, uniform_indices
from tokenreel.media.pixels import center_crop, resize

__all__ = ["ClipInputs", "ClipReader", "ClipView", "fitted"]

Pixels = npt.NDArray[np.uint8]
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipView:
    """What is seen of a clip.

    Attributes:
        video, volume: random changes in training, of videos or of volumes; None: none.
    """

    video: VideoAugment | None = None
    volume: VolumeAugment | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipInputs:
    """Clips of one batch.

    Attributes:
        video_BCTHW: float32 in [-1, 1].
        frame_counts: real frames of each clip, the first ones; None if all are.
        num_tokens: tubelets of all.
    """

    video_BCTHW: Tensor
    frame_counts: tuple[int, ...] | None
    num_tokens: int

    def __len__(self) -> int:
        return len(self.video_BCTHW)

    def to(self, device: torch.device) -> ClipInputs:
        """The same on a device."""
        return replace(self, video_BCTHW=self.video_BCTHW.to(device, non_blocking=True))

    def logits(self, model: nn.Module, generator: torch.Generator | None) -> Logits:
        """What a ViViT answers."""
        found: Logits = model(self.video_BCTHW, frame_counts=self.frame_counts, generator=generator)
        return found

    def mixed(
        self, probs: Mapping[str, Tensor], *, alpha: float, generator: torch.Generator
    ) -> tuple[ClipInputs, dict[str, Tensor]]:
        """Mixup; a mixed clip is as long as the longer of its two, and past the shorter one fades to grey."""
        video_BCTHW, counts = self.video_BCTHW, self.frame_counts
        if counts is not None:
            at_T = torch.arange(video_BCTHW.shape[2], device=video_BCTHW.device)
            is_real_BT = at_T < torch.tensor(counts, device=video_BCTHW.device)[:, None]
            video_BCTHW = video_BCTHW * is_real_BT[:, None, :, None, None]
        video_BCTHW, labels, other_B = mixup(video_BCTHW, probs, alpha=alpha, generator=generator)
        if counts is not None:
            counts = tuple(max(own, counts[other]) for own, other in zip(counts, other_B.tolist()))
        return replace(self, video_BCTHW=video_BCTHW, frame_counts=counts), labels


class ClipReader:
    """Examples to clips: decoded once, kept as uint8, put together to batches.

    Args:
        config: of the model: frames, size, channels, patches.
        view: what is seen.
        is_random: whether clips are changed at random, as in training.
    """

    def __init__(self, config: ViViTConfig, view: ClipView, *, is_random: bool) -> None:
        self.config, self.view, self.is_random = config, view, is_random
        self.time_crop = view.video.time_crop if view.video is not None and is_random else 0.0
        self._video = None if view.video is None else replace(view.video, time_crop=0.0)
        # A stretch of the clip is taken out of more frames than the model reads, so that it is not slowed down.
        self.most_frames = config.num_frames * (2 if self.time_crop else 1)

    def identity(self) -> dict[str, Any]:
        """What decides a batch beside its examples, as JSON values."""
        return {
            "num_frames": self.config.num_frames,
            "size": list(self.config.size),
            "in_channels": self.config.in_channels,
            "view": {**asdict(self.view), "fit": self.config.fit},
        }

    def read(self, example: LabelledExample) -> Tensor:
        """uint8 (C, T, H, W), at most ``most_frames`` frames.

        Raises:
            InputError: the example cannot be read, or holds tokens.
        """
        frames = fitted(_frames(example, self.most_frames), self.config.size, self.config.fit)
        video = rearrange(torch.from_numpy(np.array(frames)), "T H W C -> C T H W").contiguous()  # arrays may be mapped
        return _in_channels(video, self.config.in_channels)

    def num_bytes(self, item: Tensor) -> int:
        """Of an example that is kept."""
        return item.numel()

    def joined(self, items: Sequence[Tensor], generator: torch.Generator) -> ClipInputs:
        """A batch; every draw is the generator's."""
        clips = [self._timed(item, generator) for item in items]
        counts = [clip.shape[1] for clip in clips]
        longest = max(counts)
        if min(counts) == longest:
            video_BCTHW = self._changed(torch.stack(clips), generator)
        else:  # changes know nothing of padding
            alone = [self._changed(clip[None], generator)[0] for clip in clips]
            video_BCTHW = torch.stack([F.pad(clip, (0, 0, 0, 0, 0, longest - clip.shape[1])) for clip in alone])
        grid = self.config.grid_of((longest, *self.config.size))
        return ClipInputs(
            video_BCTHW=video_BCTHW,
            frame_counts=None if min(counts) == longest else tuple(counts),
            num_tokens=grid.num_cells * len(clips),
        )

    def _changed(self, video_BCTHW: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 clips of one length as float32 in [-1, 1], changed at random in training."""
        video_BCTHW = video_BCTHW.float().div_(127.5).sub_(1)
        if self.is_random and self._video is not None:
            video_BCTHW = self._video(video_BCTHW, generator=generator)
        if self.is_random and self.view.volume is not None:
            video_BCTHW = self.view.volume(video_BCTHW, generator=generator)
        return video_BCTHW

    def shown(self, item: Tensor, num_frames: int) -> Pixels:
        """A few frames of an example side by side, uint8 (H, n W, 3)."""
        index = np.linspace(0, item.shape[1] - 1, min(num_frames, item.shape[1])).round().astype(int)
        frames = item[:, index]
        rgb = frames if len(frames) == 3 else frames.expand(3, -1, -1, -1)
        strip: Pixels = rearrange(rgb, "C n H W -> H (n W) C").numpy()
        return strip

    def _timed(self, clip: Tensor, generator: torch.Generator) -> Tensor:
        """The frames that are read: uniform ones of the clip, or of a random stretch of it."""
        total, wanted = clip.shape[1], self.config.num_frames
        if total <= wanted:
            return clip
        start, length = 0.0, float(total)
        if self.time_crop:
            first, second = torch.rand(2, generator=generator).tolist()
            length = total * (1 - self.time_crop * first)
            start = (total - length) * second
        middle_T = start + (torch.arange(wanted) + 0.5) * (length / wanted)
        return clip[:, middle_T.long().clamp_(0, total - 1)]


def fitted(frames_THWC: Pixels, size: tuple[int, int], fit: Fit) -> Pixels:
    """Frames of 1 or 3 channels at a size (H, W)."""
    height, width = frames_THWC.shape[1:3]
    if (height, width) == size:
        return frames_THWC
    channels = frames_THWC.shape[3]
    rgb = repeat(frames_THWC, "T H W 1 -> T H W 3") if channels == 1 else frames_THWC
    if fit == "stretch":
        return resize(np.ascontiguousarray(rgb), size)[..., :channels]
    scale = max(size[0] / height, size[1] / width)
    covering = (max(size[0], round(height * scale)), max(size[1], round(width * scale)))
    return center_crop(resize(np.ascontiguousarray(rgb), covering), *size)[..., :channels]


def _frames(example: LabelledExample, most: int) -> Pixels:
    """All frames, or so many uniform ones of more."""
    if example.kind == "array":
        stored = example.frames()
        return stored if len(stored) <= most else stored[uniform_indices(len(stored), most)]
    frames = example.frames(Selection(max_frames=most + 1))
    return frames if len(frames) <= most else example.frames(Selection(uniform=most))


def _in_channels(video_CTHW: Tensor, channels: int) -> Tensor:
    if len(video_CTHW) == channels:
        return video_CTHW
    if channels == 3:
        return repeat(video_CTHW, "1 T H W -> 3 T H W").contiguous()
    weights = torch.tensor(_LUMA)[:, None, None, None]
    return (video_CTHW.float() * weights).sum(0, keepdim=True).round_().clamp_(0, 255).to(torch.uint8)
