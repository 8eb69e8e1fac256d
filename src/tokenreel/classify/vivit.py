"""ViViT, a video classifier: tubelets, one of four transformers, a head for each attribute.

Letters: B batch, C channels, T frames, H W pixels, t h w grid, D dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.errors import InputError
from tokenreel.nn.positions import GridSize
from tokenreel.patches.embed import TubeletEmbed, uniform_frames

from .classifier import Classifier
from .logits import Heads, Logits
from .stem import SHRINK as STEM_SHRINK
from .stem import ConvStem
from .vivit_config import SIZES, ViViTConfig
from .vivit_encoders import ENCODERS

__all__ = ["ViViT"]


class ViViT(Classifier):
    """Videos to labels: ``forward((B, C, T, H, W) in [-1, 1]) -> Logits``. arXiv 2103.15691.

    Any size is taken. What does not divide into tubelets is padded with zeros, frames past ``frame_counts`` are hidden
    from attention and mean: neither what they hold nor how many they are changes a logit.
    """

    name = "vivit"
    config_type = ViViTConfig
    sizes: ClassVar[Mapping[str, ViViTConfig]] = SIZES
    summary = "A video classifier of tubelets and transformers over space and time."
    papers = ("2103.15691",)
    config: ViViTConfig

    def __init__(self, config: ViViTConfig) -> None:
        super().__init__(config)
        dim, grid = config.encoder.dim, config.grid
        channels, (pt, ph, pw) = config.in_channels, config.patch_size
        self.stem: ConvStem | None = None
        if config.stem_channels is not None:
            self.stem = ConvStem(in_channels=channels, channels=config.stem_channels)
            channels, ph, pw = 2 * config.stem_channels, ph // STEM_SHRINK, pw // STEM_SHRINK
        self.embed = TubeletEmbed(in_channels=channels, dim=dim, patch_size=(pt, ph, pw))
        self.encoder = ENCODERS[config.model](config, (grid.t, grid.h, grid.w))
        self.out = Heads(dim=dim, heads=config.heads)

    def forward(
        self,
        video_BCTHW: Tensor,
        *,
        frame_counts: Sequence[int] | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Logits:
        """(B, C, T, H, W) in [-1, 1] -> head name -> (B, classes).

        Args:
            video_BCTHW: videos; T frames should be ``config.num_frames``, sampled uniformly (``batch_of`` does it).
            frame_counts: real frames of each video, the first ones; None if all are.
            generator: draws what ``drop_path`` drops in training; None takes torch's own.
        """
        video, own = self._real(video_BCTHW, frame_counts)
        logits: Logits = self.out(self.encoder(self._embedded(video), own, generator=generator))
        return logits

    def batch_of(self, videos: Sequence[Any]) -> tuple[Tensor, list[int]]:
        """Videos (C, T, H, W) of one frame size, float in [-1, 1] or uint8 -> what ``forward`` reads, on this device.

        Of longer videos ``config.num_frames`` are taken uniformly (arXiv 2103.15691, section 3.2); shorter ones are
        padded, and their own number of frames is in the counts.
        """
        if not len(videos):
            raise InputError("batch_of needs at least one video, got none")
        clips = [self._sampled(torch.as_tensor(video), index) for index, video in enumerate(videos)]
        sizes = {tuple(clip.shape[2:]) for clip in clips}
        if len(sizes) > 1:
            raise InputError(f"videos of one batch must have one frame size, got {sorted(sizes)}; resize them first")
        counts = [clip.shape[1] for clip in clips]
        longest = max(counts)
        padded = [F.pad(clip, (0, 0, 0, 0, 0, longest - clip.shape[1])) for clip in clips]
        return torch.stack(padded), counts

    def predict(self, videos: Sequence[Any]) -> Logits:
        """Videos as ``batch_of`` takes them -> ``Logits`` on the CPU, in eval mode and without gradients."""
        video_BCTHW, counts = self.batch_of(videos)
        with self.running():
            logits = self(video_BCTHW, frame_counts=counts)
        return Logits(logits.heads, tuple(score_BC.float().cpu() for score_BC in logits.scores))

    def init_from_image_vit(
        self, state: Mapping[str, Tensor], *, how: Literal["central", "average"] = "central"
    ) -> None:
        """Start from the weights of an image ViT, named as timm or transformers name them; heads stay as they are.

        arXiv 2103.15691, section 3.4: see ``image_start``.
        """
        from .image_start import start_from_image

        if self.stem is not None:
            raise InputError("an image ViT reads pixels; a classifier with stem_channels cannot start from it")
        start_from_image(self, state, how=how)

    def _sampled(self, video: Tensor, index: int) -> Tensor:
        if video.ndim != 4 or video.shape[0] != self.config.in_channels or 0 in video.shape:
            raise InputError(
                f"video {index} must be ({self.config.in_channels}, T, H, W) with at least one frame and pixel, "
                f"got shape {tuple(video.shape)}"
            )
        if video.dtype != torch.uint8 and not video.is_floating_point():
            raise InputError(f"video {index} must be float in [-1, 1] or uint8, got {video.dtype}")
        if video.shape[1] > self.config.num_frames:
            video = uniform_frames(video[None], self.config.num_frames)[0]
        video = video.to(self.device)
        return video.float().div(127.5).sub(1) if video.dtype == torch.uint8 else video.float()

    def _real(
        self, video_BCTHW: Tensor, frame_counts: Sequence[int] | Tensor | None
    ) -> tuple[Tensor, list[GridSize] | None]:
        """The videos with zeros for frames that are not real, and the grid of each; None if all are real."""
        shape = tuple(video_BCTHW.shape)
        if len(shape) != 5 or shape[1] != self.config.in_channels or 0 in shape:
            raise InputError(
                f"expected videos (B, {self.config.in_channels}, T, H, W), got shape {shape}; an image is T = 1"
            )
        if not video_BCTHW.is_floating_point():
            raise InputError(f"forward takes float videos in [-1, 1], got {video_BCTHW.dtype}; batch_of converts uint8")
        if frame_counts is None:
            return video_BCTHW, None
        counts = [int(count) for count in frame_counts]
        B, _, T, H, W = shape
        if len(counts) != B or min(counts) < 1 or max(counts) > T:
            raise InputError(f"frame_counts must hold {B} counts in [1, {T}], got {counts}")
        if min(counts) == T:
            return video_BCTHW, None
        grids = [self.config.grid_of((count, H, W)) for count in counts]
        counts_B = torch.tensor(counts, device=video_BCTHW.device)
        padding_BT = torch.arange(T, device=video_BCTHW.device) >= counts_B[:, None]
        hidden = video_BCTHW.masked_fill(padding_BT[:, None, :, None, None], 0)
        return hidden, [(grid.t, grid.h, grid.w) for grid in grids]

    def _embedded(self, video_BCTHW: Tensor) -> Tensor:
        """(B, t, h, w, D) of the tubelets."""
        video = self._fitted(video_BCTHW)
        x_BthwD: Tensor = self.embed(video if self.stem is None else self.stem(video))
        return x_BthwD

    def _fitted(self, video_BCTHW: Tensor) -> Tensor:
        """Padded with zeros, or cropped, to whole tubelets."""
        sides = tuple(video_BCTHW.shape[2:])
        grid = self.config.grid_of(sides)  # type: ignore[arg-type]
        wanted = [count * patch for count, patch in zip((grid.t, grid.h, grid.w), self.config.patch_size)]
        T, H, W = (want - have for want, have in zip(wanted, sides))
        return F.pad(video_BCTHW, (0, W, 0, H, 0, T)) if T or H or W else video_BCTHW
