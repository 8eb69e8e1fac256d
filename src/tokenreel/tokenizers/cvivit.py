"""(3) C-ViViT: a causal video tokenizer; the first frame alone, then tubelets. Phenaki, arXiv 2210.02399.

Letters: B batch, C channels (3), T H W pixels, t h w grid, D dim, E codebook_dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.errors import InputError, MismatchError
from tokenreel.patches.embed import PatchEmbed
from tokenreel.quantize import FSQConfig, QuantizerConfig, VQConfig, build_quantizer
from tokenreel.types import Grid, Layout, PatchSize, Tokens, check_patch_size

from .base import Reconstruction, StreamDecoder, StreamEncoder
from .configs import BlockOptions
from .cvivit_head import ConvHead, FrameHead
from .cvivit_linear import fit_linear, fit_transforms
from .cvivit_loop import decode_steps, forward_loop
from .cvivit_model import AttentionKind, Factorised, FactorisedConfig, FrameEmbed, Positions
from .cvivit_stream import CViViTDecoder, CViViTEncoder, HeldEncoder
from .cvivit_transforms import PatchTransforms
from .groups import in_groups
from .learned import LearnedTokenizer

__all__ = ["CViViT", "CViViTConfig", "FactorisedConfig"]

Patching = Literal["pixels", "haar"]
Prediction = Literal["none", "last"]

_PASS_TOKENS = 16_384  # tokens that go through the network at once


@dataclass(frozen=True, slots=True, kw_only=True)
class CViViTConfig:
    """Configuration of ``CViViT``.

    Attributes:
        patch_size: (pt, ph, pw) of all frames but the first, which is cut into (1, ph, pw).
        encoder, decoder: sizes of the two halves.
        quantizer: any of VQ, FSQ, LFQ.
        temporal_window: steps of the grid that temporal attention sees, the own one included. Not used without
            ``causal``, which sees the whole clip.
        causal: no step sees a later one, so clips stream, and the first frame's ids are the image's.
        positions: ``rotary`` over (h, w), or ``bias``, the continuous bias of the paper (a little slower).
        peg: a position generator (depthwise 3-D convolution) before each half.
        attention: ``factorised`` within steps and along time, or ``full`` over all cells of a clip at once, with as
            many blocks; full attention needs ``causal=False``.
        spatial_window: cells a side of the windows that spatial attention stays in, in every second block shifted by
            half of one; None: all cells of a step see each other, which large frames make dear. A grid that fits into
            one window is as without.
        patching: what the linear maps of patches read and write, ``pixels`` or ``haar`` wavelets.
        linear_path: a linear map from the pixels of a patch to its latent, and from its code to its pixels, beside the
            two halves. ``start_linear`` makes the tokenizer a transform codec, which training then improves on.
        num_transforms: instead of the linear path M transforms of a patch that the encoder chooses from, see
            ``cvivit_transforms``; the quantizer is then FSQ with M levels first. ``start_linear`` fits them.
        transform_width: R, numbers that a patch is reduced to before.
        head_channels: F of the convolutions that end the decoder, see ``ConvHead``; None: one linear map a patch, whose
            borders show.
        prediction: ``last``: a step is coded as what the last decoded frame before it does not tell, see
            ``cvivit_loop``; ``none``: every step afresh.
        blocks: options of all blocks.
    """

    patch_size: PatchSize
    encoder: FactorisedConfig
    decoder: FactorisedConfig
    quantizer: QuantizerConfig
    temporal_window: int
    causal: bool = True
    positions: Positions = "rotary"
    peg: bool = True
    attention: AttentionKind = "factorised"
    spatial_window: int | None = None
    patching: Patching = "pixels"
    linear_path: bool = False
    num_transforms: int | None = None
    transform_width: int = 160
    head_channels: int | None = None
    prediction: Prediction = "none"
    blocks: BlockOptions = field(default_factory=BlockOptions)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_size", check_patch_size(self.patch_size))
        if self.temporal_window < 1:
            raise InputError(f"CViViTConfig.temporal_window must be at least 1, got {self.temporal_window}")
        for name, kinds in (("attention", AttentionKind), ("patching", Patching)):
            if getattr(self, name) not in get_args(kinds):
                raise InputError(f"{name} must be one of {', '.join(get_args(kinds))}, got {getattr(self, name)!r}")
        if self.spatial_window is not None and (
            self.spatial_window < 2 or self.attention == "full" or self.blocks.drop_path
        ):
            raise InputError(
                "spatial_window must be at least 2, or None, and needs attention='factorised' and blocks.drop_path=0, "
                f"got {self.spatial_window} with {self.attention!r} and {self.blocks.drop_path}"
            )
        if self.attention == "full" and (self.causal or self.positions == "bias"):
            raise InputError("attention='full' needs causal=False and positions='rotary'")
        if self.prediction not in get_args(Prediction):
            raise InputError(f"prediction must be one of {', '.join(get_args(Prediction))}, got {self.prediction!r}")
        if self.prediction != "none" and (not self.causal or self.blocks.drop_path):
            raise InputError("prediction='last' needs causal=True and blocks.drop_path=0: it goes through step by step")
        if self.num_transforms is not None and self.linear_path:
            raise InputError("num_transforms takes the place of linear_path; choose one of the two")
        if self.transform_width < 1:
            raise InputError(f"transform_width must be at least 1, got {self.transform_width}")
        if self.head_channels is not None and self.head_channels < 1:
            raise InputError(f"head_channels must be at least 1, or None for a linear head, got {self.head_channels}")


def _sizes(dim: int, spatial_depth: int, temporal_depth: int, head_dim: int = 64) -> FactorisedConfig:
    return FactorisedConfig(
        dim=dim,
        spatial_depth=spatial_depth,
        temporal_depth=temporal_depth,
        num_heads=dim // head_dim,
        head_dim=head_dim,
        mlp_dim=4 * dim,
    )


# 64,000 codes, the finest for the first component: 1 dB more on film than (8, 8, 8, 5, 5, 5) of arXiv 2309.15505.
_FSQ_64K = FSQConfig(levels=(40, 10, 8, 5, 4))


def _config(
    patch_size: PatchSize, sizes: FactorisedConfig, quantizer: QuantizerConfig = _FSQ_64K, **options: Any
) -> CViViTConfig:
    return CViViTConfig(
        patch_size=patch_size,
        quantizer=quantizer,
        **{"encoder": sizes, "decoder": sizes, "temporal_window": 8, **options},
    )


class CViViT(LearnedTokenizer):
    """Videos of any length and size to one id a cell of the grid (1 + ceil((T - 1) / pt), ceil(H / ph), ceil(W / pw)).

    patches -> spatial, then temporal transformer -> latents -> quantizer -> temporal, then spatial transformer ->
    patches. The first frame is coded alone, so an image is a video of one frame. With ``causal`` a change of later
    frames changes no earlier id, latent or pixel bit for bit (at equal shapes), counted in steps of the grid: the pt
    frames of one tubelet belong together.
    """

    name: ClassVar[str] = "cvivit"
    config_type: ClassVar[type[Any]] = CViViTConfig
    summary: ClassVar[str] = "Causal video and image tokens on a grid, streaming, any size and length (C-ViViT)."
    papers: ClassVar[tuple[str, ...]] = ("2210.02399", "2309.15505")
    encoder_parts: ClassVar[tuple[str, ...]] = (
        "embed",
        "encoder_half",
        "encoder_sees",
        "to_latents",
        "quantizer",
        "linear_in",
        "transforms",
    )
    sizes: ClassVar[Mapping[str, CViViTConfig]] = {
        "tiny": _config((4, 8, 8), _sizes(192, 3, 2), linear_path=True),
        "small": _config((4, 8, 8), _sizes(384, 4, 4), linear_path=True),
        "base": _config((4, 8, 8), _sizes(512, 4, 4), linear_path=True),
        # Made for a CPU: steps are what the frame before does not tell, patches choose among 64 transforms.
        "predictive": _config(
            (4, 8, 8),
            _sizes(192, 3, 1),
            FSQConfig(levels=(64, 10, 10, 10)),
            num_transforms=64,
            head_channels=24,
            prediction="last",
            spatial_window=16,
        ),
        # For a small drawn world: each 4x4 patch as the nearest of 4,096, found by k-means; only the decoder learns.
        "codebook": _config(
            (1, 4, 4),
            _sizes(96, 1, 1, head_dim=32),
            VQConfig(codebook_size=4096, codebook_dim=32, kmeans_iterations=12),
            encoder=_sizes(16, 1, 1, head_dim=16),
            linear_path=True,
        ),
        # The README of phenaki-pytorch: 17 frames 256x256 become 9x8x8 ids.
        "phenaki": _config((2, 32, 32), _sizes(512, 4, 4), VQConfig(codebook_size=5000, codebook_dim=512)),
    }

    def __init__(self, config: CViViTConfig) -> None:
        super().__init__(config)
        options: dict[str, Any] = {
            "blocks": config.blocks,
            "positions": config.positions,
            "peg": config.peg,
            "causal": config.causal,
            "window": config.temporal_window,
            "attention": config.attention,
            "spatial_window": config.spatial_window,
        }
        has_waves = config.patching == "haar"
        self.embed = FrameEmbed(dim=config.encoder.dim, patch_size=config.patch_size, haar=has_waves)
        self.encoder_half = Factorised(config.encoder, temporal_first=False, **options)
        self.quantizer = build_quantizer(config.quantizer)
        self.to_latents = nn.Linear(config.encoder.dim, self.quantizer.codebook_dim)
        self.from_codes = nn.Linear(self.quantizer.codebook_dim, config.decoder.dim)
        self.decoder_half = Factorised(config.decoder, temporal_first=True, **options)
        self.head = self._head()
        self.encoder_sees, self.decoder_sees = None, None
        if config.prediction == "last":
            patch = config.patch_size[1:]
            self.encoder_sees = PatchEmbed(in_channels=3, dim=config.encoder.dim, patch_size=patch)
            self.decoder_sees = PatchEmbed(in_channels=3, dim=config.decoder.dim, patch_size=patch)
        self.linear_in, self.linear_out = None, None
        if config.linear_path:
            width = self.quantizer.codebook_dim
            self.linear_in = FrameEmbed(dim=width, patch_size=config.patch_size)
            self.linear_out = FrameHead(dim=width, patch_size=config.patch_size)
        self.transforms: PatchTransforms | None = None
        if config.num_transforms is not None:
            self.transforms = PatchTransforms(
                patch_size=config.patch_size,
                quantizer=self.quantizer,
                num_transforms=config.num_transforms,
                reduced=config.transform_width,
            )
            self.from_cells = nn.Linear(config.transform_width, config.decoder.dim, bias=False)

    def _head(self) -> FrameHead | ConvHead:
        dim, patch_size, channels = self.config.decoder.dim, self.config.patch_size, self.config.head_channels
        if channels is None:
            return FrameHead(dim=dim, patch_size=patch_size, haar=self.config.patching == "haar")
        return ConvHead(dim=dim, patch_size=patch_size, channels=channels, has_last=self.config.prediction == "last")

    @property
    def is_predictive(self) -> bool:
        """Whether steps are coded as what the frame before does not tell."""
        is_one: bool = self.config.prediction != "none"
        return is_one

    @property
    def quantizer_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def layout(self) -> Layout:
        """``grid``."""
        return "grid"

    @property
    def first_frames(self) -> int:
        """1: the first frame is coded alone."""
        return 1

    @property
    def last_weight(self) -> Tensor:
        """Of the map to the pixels of tubelets."""
        return self.head.last_weight if isinstance(self.head, ConvHead) else self.head.rest.weight

    def is_kept_whole(self, name: str) -> bool:
        """The transforms, a tenth of the weights: rounded to float16 they changed nine of ten ids that changed."""
        return name.startswith(("transforms.", "linear_in.", "to_latents."))

    def grid_of(self, size: tuple[int, int, int]) -> Grid:
        """The grid of a video of (T, H, W)."""
        pt, ph, pw = self.patch_size
        frames, height, width = size
        return Grid(t=1 - (1 - frames) // pt, h=-(-height // ph), w=-(-width // pw))

    def num_tokens_of(self, size: tuple[int, int, int]) -> int:
        """How many ids a video of (T, H, W) becomes."""
        return self.grid_of(size).num_cells

    def forward(
        self,
        video_BCTHW: Tensor,
        *,
        frame_counts: Sequence[int] | None = None,
        passes: int = 0,
        generator: torch.Generator | None = None,
    ) -> Reconstruction:
        """(B, 3, T, H, W) in [-1, 1] -> ``Reconstruction``: a video of that shape, latents and codes (B, t, h, w, E).

        Args:
            video_BCTHW: clips of one size; shorter ones are padded with anything at the end.
            frame_counts: frames of each clip that are real; the rest reaches no token that counts, no loss of the
                quantizer, and comes back as something to be ignored.
            passes: of a predictive tokenizer, to and fro over the clip before the one that is compared, so that it
                learns the state of long streams; see ``cvivit_loop``. Not with ``frame_counts``.
            generator: randomness of dropped branches and of the quantizer.
        """
        valid_mask = None
        if passes and (frame_counts is not None or not self.is_predictive):
            raise InputError("passes are for tokenizers with prediction='last', and not with frame_counts")
        if frame_counts is not None:
            video_BCTHW, valid_mask = self._filled(video_BCTHW, frame_counts)
        if self.is_predictive:
            return forward_loop(self, video_BCTHW, valid_mask=valid_mask, generator=generator, passes=passes)
        latents_BthwE = self.latents(video_BCTHW, valid_mask=valid_mask, generator=generator)
        counted = None if valid_mask is None else valid_mask[:, :, None, None].expand(latents_BthwE.shape[:-1])
        codes_BthwE, ids_Bthw, aux = self.quantizer(latents_BthwE, valid_mask=counted, generator=generator)
        decoded_BCTHW = self.frames(codes_BthwE, valid_mask=valid_mask, generator=generator)
        frames, height, width = video_BCTHW.shape[2:]
        return Reconstruction(decoded_BCTHW[:, :, :frames, :height, :width], latents_BthwE, codes_BthwE, ids_Bthw, aux)

    def latents(
        self, video_BCTHW: Tensor, *, valid_mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, 3, T, H, W) -> (B, t, h, w, E) float32, before quantizing."""
        if self.is_predictive:
            return forward_loop(self, video_BCTHW, valid_mask=valid_mask, generator=generator).latents
        features_BthwD = self.embed(video_BCTHW)
        features_BthwD = self.encoder_half(features_BthwD, valid_mask=valid_mask, generator=generator)
        return self.latents_of(features_BthwD, video_BCTHW)

    def latents_of(self, features_BthwD: Tensor, video_BCTHW: Tensor, *, has_first: bool = True) -> Tensor:
        """(B, t, h, w, D) and their pixels -> (B, t, h, w, E), in float32 under any autocast: rounding moves ids."""
        with torch.autocast(features_BthwD.device.type, enabled=False):
            latents: Tensor = self.to_latents(features_BthwD.to(self.to_latents.weight.dtype))
            if self.linear_in is not None:
                latents = latents + self.linear_in(video_BCTHW.to(latents.dtype), has_first=has_first)
            if self.transforms is not None:
                video_BCTHW = video_BCTHW.to(latents.dtype)
                latents = self.transforms.latents(video_BCTHW, latents, self.quantizer, has_first=has_first)
        return latents

    def features_of(self, codes_BthwE: Tensor, *, has_first: bool = True) -> Tensor:
        """(B, t, h, w, E) -> (B, t, h, w, D): what the decoder's half reads."""
        features: Tensor = self.from_codes(codes_BthwE.to(self.from_codes.weight.dtype))
        if self.transforms is None:
            return features
        more: Tensor = features + self.from_cells(self.transforms.cells(codes_BthwE, has_first=has_first))
        return more

    @torch.no_grad()
    def start_linear(self, videos: Sequence[Tensor]) -> None:
        """Become the linear transform codec that suits these videos (3, T, H, W): see ``cvivit_linear``."""
        clips = self.checked_videos(videos)
        if self.transforms is not None:
            fit_transforms(self.transforms, self.quantizer, clips, is_predictive=self.is_predictive)
        elif self.linear_in is not None and self.linear_out is not None:
            fit_linear(self.linear_in, self.linear_out, self.quantizer, clips, is_predictive=self.is_predictive)
        else:
            raise InputError("start_linear needs a tokenizer with linear_path=True or with num_transforms")
        heads: list[nn.Linear] = []
        if isinstance(self.head, ConvHead):
            self.head.start_at_zero()
        else:
            heads = [self.head.first, self.head.rest]
        for layer in (self.to_latents, *heads):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def pixels_of(
        self,
        features_BthwD: Tensor,
        codes_BthwE: Tensor,
        *,
        last_BCHW: Tensor | None = None,
        has_first: bool = True,
    ) -> Tensor:
        """(B, t, h, w, D) and their codes -> (B, 3, T, h * ph, w * pw).

        ``last_BCHW``: the decoded frame before them, which a predictive tokenizer goes on from.
        """
        drawn: Tensor | None = None
        if self.linear_out is not None:
            drawn = self.linear_out(codes_BthwE.to(self.from_codes.weight.dtype), has_first=has_first)
        elif self.transforms is not None:
            drawn = self.transforms.frames(self.transforms.cells(codes_BthwE, has_first=has_first), has_first=has_first)
        if isinstance(self.head, ConvHead):
            drawn = self._blank(features_BthwD, has_first) if drawn is None else drawn
            drawn = drawn if last_BCHW is None else drawn + last_BCHW[:, :, None]
            finished: Tensor = self.head(features_BthwD, drawn, last_BCHW=last_BCHW, has_first=has_first)
            return finished
        video: Tensor = self.head(features_BthwD, has_first=has_first)
        for part in (drawn, None if last_BCHW is None else last_BCHW[:, :, None]):
            video = video if part is None else video + part
        return video

    def _blank(self, features_BthwD: Tensor, has_first: bool) -> Tensor:
        """(B, 3, T, H, W) of zeros."""
        batch, steps, height, width, _ = features_BthwD.shape
        pt, ph, pw = self.patch_size
        frames = 1 + (steps - 1) * pt if has_first else steps * pt
        return features_BthwD.new_zeros(batch, 3, frames, height * ph, width * pw)

    def frames(
        self, codes_BthwE: Tensor, *, valid_mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, t, h, w, E) -> (B, 3, 1 + (t - 1) * pt, h * ph, w * pw), padding included."""
        if self.is_predictive:
            return decode_steps(self, codes_BthwE)
        features_BthwD = self.features_of(codes_BthwE)
        features_BthwD = self.decoder_half(features_BthwD, valid_mask=valid_mask, generator=generator)
        return self.pixels_of(features_BthwD, codes_BthwE)

    def encode(self, videos: Sequence[Any]) -> list[Tokens]:
        """Videos (3, T, H, W) in [-1, 1] (or uint8), sizes may differ -> one Tokens a video, in order.

        Clips of one size go through together; a causal tokenizer streams clips that are too long for one pass, a
        predictive one all clips, one by one, so that the ids of a clip never hang on its company.
        """
        clips, found = self.checked_videos(videos), {}
        with self.running():
            for size, indices in in_groups([_size(clip) for clip in clips], self._at_once):
                if self._goes_in_parts(size):
                    for index in indices:
                        found[index] = CViViTEncoder(self).ids_of(clips[index])
                    continue
                ids_Bthw = self.ids(self.latents(torch.stack([clips[index] for index in indices])))
                found.update(zip(indices, ids_Bthw.flatten(1)))
        return [self.tokens(found[index], _size(clip)) for index, clip in enumerate(clips)]

    def ids(self, latents_BthwE: Tensor) -> Tensor:
        """(B, t, h, w, E) -> (B, t, h, w) int64. InputError if the weights give latents that are not finite."""
        if not bool(torch.isfinite(latents_BthwE).all()):
            raise InputError("the weights of this tokenizer give latents that are not finite; load other weights")
        ids: Tensor = self.quantizer(latents_BthwE).ids
        return ids

    def tokens(self, ids_L: Tensor, size: tuple[int, int, int], *, steps: int | None = None) -> Tokens:
        """Ids as ``Tokens`` of a video, or of ``steps`` steps of a stream, of ``size``."""
        grid = self.grid_of(size)
        return Tokens(
            ids_L=ids_L.cpu().numpy(),
            layout="grid",
            grid=grid if steps is None else Grid(t=steps, h=grid.h, w=grid.w),
            size=size,
            codebook_size=self.codebook_size,
            tokenizer=self.name,
            fingerprint=self.fingerprint,
            meta=self.reference,
        )

    def decode(self, tokens: Sequence[Tokens]) -> list[Tensor]:
        """Tokens -> videos (3, T, H, W) float32 in [-1, 1] on the CPU, in order, of the sizes that were encoded."""
        self.check_tokens(tokens)
        for item in tokens:
            if item.grid != self.grid_of(item.size):
                raise MismatchError(
                    f"tokens of {item.size[0]} frames {item.size[2]}x{item.size[1]} must have the grid "
                    f"{self.grid_of(item.size)} here, got {item.grid}; parts of a stream go through decoder()"
                )
        videos: dict[int, Tensor] = {}
        with self.running():
            for size, indices in in_groups([item.size for item in tokens], self._at_once):
                if self._goes_in_parts(size):
                    for index in indices:
                        videos[index] = torch.cat(CViViTDecoder(self).push(tokens[index]), dim=1)
                    continue
                codes_BthwE = torch.stack([self.codes_of(tokens[index]) for index in indices])
                decoded_BCTHW = cropped(self.frames(codes_BthwE), size)
                videos.update(zip(indices, decoded_BCTHW.cpu()))
        return [videos[index] for index in range(len(tokens))]

    def codes_of(self, tokens: Tokens) -> Tensor:
        """(t, h, w, E) on this device."""
        ids_L = torch.from_numpy(tokens.ids_L.astype("int64")).to(self.device)
        codes_LE = self.quantizer.codes(ids_L)
        return rearrange(codes_LE, "(t h w) E -> t h w E", t=tokens.grid.t, h=tokens.grid.h, w=tokens.grid.w)

    def encoder(self) -> StreamEncoder:
        """A stream over one clip; with ``causal`` its memory does not grow, without it waits for the whole clip."""
        return CViViTEncoder(self) if self.config.causal else HeldEncoder(self)

    def decoder(self) -> StreamDecoder:
        """A stream over one clip, as ``encoder``."""
        return CViViTDecoder(self)

    def _goes_in_parts(self, size: tuple[int, int, int]) -> bool:
        return self.is_predictive or (self.config.causal and self.num_tokens_of(size) > _PASS_TOKENS)

    def _at_once(self, size: tuple[int, int, int]) -> int:
        return _PASS_TOKENS // self.num_tokens_of(size)

    def _filled(self, video_BCTHW: Tensor, frame_counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Clips whose padded frames repeat the last real one, and (B, t) bool: which steps hold real frames."""
        batch, frames = video_BCTHW.shape[0], video_BCTHW.shape[2]
        if len(frame_counts) != batch or min(frame_counts) < 1 or max(frame_counts) > frames:
            raise InputError(f"frame_counts must hold {batch} numbers from 1 to {frames}, got {list(frame_counts)}")
        device = video_BCTHW.device
        last_B = torch.tensor(list(frame_counts), device=device) - 1
        which_BT = torch.minimum(torch.arange(frames, device=device), last_B[:, None])
        index = which_BT[:, None, :, None, None].expand_as(video_BCTHW)
        steps_B = -(-last_B // self.patch_size[0]) + 1
        steps = self.grid_of((frames, 1, 1)).t
        return video_BCTHW.gather(2, index), torch.arange(steps, device=device) < steps_B[:, None]


def _size(video_CTHW: Tensor) -> tuple[int, int, int]:
    _, frames, height, width = video_CTHW.shape
    return frames, height, width


def cropped(video_BCTHW: Tensor, size: tuple[int, int, int]) -> Tensor:
    """To (T, H, W), as float32 in [-1, 1]."""
    frames, height, width = size
    return video_BCTHW[:, :, :frames, :height, :width].float().clamp(-1, 1)
