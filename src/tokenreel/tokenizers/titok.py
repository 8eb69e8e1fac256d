"""(4) TiTok: a picture as a short row of 1-D tokens, taken up by learned queries (arXiv 2406.07550).

Letters: B videos, N pictures (the frames of all videos), C channels (3), T frames, H W pixels, h w grid,
P = h*w patches, Q queries, L tokens a picture (Q, a prefix of it, or P), D dim, E codebook_dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import InputError, MismatchError
from tokenreel.nn.blocks import Transformer
from tokenreel.nn.initial import drawn
from tokenreel.nn.positions import LearnedPositions
from tokenreel.patches.embed import PatchEmbed, padded
from tokenreel.quantize import build_quantizer
from tokenreel.types import Grid, Layout, Tokens

from .base import Reconstruction
from .counts import checked_counts
from .frame_convs import FrameConvs
from .groups import in_groups
from .learned import LearnedTokenizer
from .spectrum import Spectrum
from .titok_config import SIZES, TiTokConfig
from .titok_stream import TiTokDecoder, TiTokEncoder

__all__ = ["TiTok", "TiTokConfig"]

TokenCounts = int | Sequence[int] | Tensor | None

_TOKENS_AT_ONCE = 1 << 13  # patches and queries in one pass of a transformer


class TiTok(LearnedTokenizer):
    """Pictures to ``num_queries`` ids each, or to one id a patch; the frames of a video are coded one by one.

    arXiv 2406.07550, section 3.2: a ViT reads patches and learned queries, and only the queries are quantized,
    Z = Enc(P + L); a second ViT reads the codes and one mask token a patch, and the mask tokens become pixels,
    I = Dec(Quant(Z) + M), where + joins sequences.
    Without queries the patches themselves are quantized, as in ViT-VQGAN (arXiv 2110.04627, section 3.1).

    With ``nested_dropout`` every prefix of a picture's ids is a description of it: ``encode(token_counts=...)``.
    """

    name: ClassVar[str] = "titok"
    config_type: ClassVar[type[Any]] = TiTokConfig
    sizes: ClassVar[Mapping[str, TiTokConfig]] = SIZES
    summary: ClassVar[str] = "Pictures as short rows of 1-D tokens: a vision transformer with learned queries"
    encoder_parts: ClassVar[tuple[str, ...]] = (
        "embed",
        "encoder_positions",
        "encoder_stack",
        "to_latents",
        "quantizer",
        "spectrum",
    )
    papers: ClassVar[tuple[str, ...]] = ("2406.07550", "2501.10064", "2502.13967")

    config: TiTokConfig

    def __init__(self, config: TiTokConfig) -> None:
        super().__init__(config)
        _, ph, pw = config.patch_size
        grid = Grid.of(1, *config.image_size, config.patch_size)
        shape, inner, outer = (1, grid.h, grid.w), config.encoder.dim, config.decoder.dim
        self.embed = PatchEmbed(in_channels=3, dim=inner, patch_size=(ph, pw))
        self.encoder_positions = LearnedPositions(grid=shape, dim=inner, interpolate=True)
        self.encoder_stack = Transformer(config.encoder.transformer(config.blocks))
        self.quantizer = build_quantizer(config.quantizer)
        self.to_latents = nn.Linear(inner, self.quantizer.codebook_dim)
        self.from_codes = nn.Linear(self.quantizer.codebook_dim, outer)
        self.decoder_positions = LearnedPositions(grid=shape, dim=outer, interpolate=True)
        self.decoder_stack = Transformer(config.decoder.transformer(config.blocks))
        self.to_pixels = nn.Linear(outer, ph * pw * 3)
        self.convs: FrameConvs | None = None
        if config.head_channels is not None:
            self.convs = FrameConvs(dim=outer, patch_size=config.patch_size, channels=config.head_channels, others=0)
        self.spectrum: Spectrum | None = None
        if config.spectral and config.num_queries is not None:
            self.spectrum = Spectrum(
                num_tokens=config.num_queries,
                channels=3,
                cell_values=3,
                quantizer=self.quantizer,
                kinds=config.spectral_kinds,
            )
            self.from_cells = nn.Linear(ph * pw * 3, outer, bias=False)
        if config.num_queries is not None:
            self.queries_QD = _start(config.num_queries, inner)
            self.code_positions_QD = _start(config.num_queries, outer)
            self.mask_D = _start(outer)

    def is_kept_whole(self, name: str) -> bool:
        """The spectrum, a few weights: rounded to float16 they changed all ids that changed."""
        return name.startswith("spectrum.")

    @property
    def quantizer_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def layout(self) -> Layout:
        """``queries``, or ``grid`` where the patches themselves are quantized."""
        return "grid" if self.config.num_queries is None else "queries"

    @property
    def token_count(self) -> int | None:
        """Q, where no other is asked for; None where there are no queries."""
        return self.config.num_queries

    @property
    def last_weight(self) -> Tensor:
        """Of the map to pixels."""
        return self.to_pixels.weight if self.convs is None else self.convs.last.weight

    def num_tokens_of(self, size: tuple[int, int, int]) -> int:
        """T times Q, or the cells of the grid; a shorter prefix takes fewer."""
        grid = Grid.of(*size, self.patch_size)
        return grid.num_cells if self.config.num_queries is None else grid.t * self.config.num_queries

    def encoder(self, *, token_count: int | None = None) -> TiTokEncoder:
        """A stream; each push gives the tokens of its frames, ``token_count`` of each frame where it is given."""
        return TiTokEncoder(self, token_count=token_count)

    def decoder(self) -> TiTokDecoder:
        """A stream; each part decodes alone."""
        return TiTokDecoder(self)

    # Training.

    def forward(
        self, video_BCTHW: Tensor, *, token_counts: TokenCounts = None, generator: torch.Generator | None = None
    ) -> Reconstruction:
        """Videos (B, C, T, H, W) in [-1, 1] -> ``Reconstruction``: video (B, C, T, H, W), ids (B*T, L).

        Args:
            video_BCTHW: any T, H and W.
            token_counts: how many queries each of the B*T pictures keeps, one number or B*T of them. None keeps all,
                but in training with ``nested_dropout`` draws each picture's count uniformly from 1 to Q.
            generator: of that draw, and of what stacks and quantizer draw.
        """
        B, _, _, H, W = video_BCTHW.shape
        latents_NLE = self._latents(rearrange(video_BCTHW, "B C T H W -> (B T) C H W"), generator)
        is_kept_NL = self._kept(latents_NLE, token_counts, generator)
        codes_NLE, ids_NL, aux = self.quantizer(latents_NLE, valid_mask=is_kept_NL, generator=generator)
        frames_NCHW = self._pixels(codes_NLE, (H, W), is_kept_NL, generator)
        video = rearrange(frames_NCHW, "(B T) C H W -> B C T H W", B=B)
        return Reconstruction(video, latents_NLE, codes_NLE, ids_NL, aux)

    def _latents(self, frames_NCHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(N, C, H, W) -> (N, L, E), float32 whatever precision the stack runs in."""
        embedded_NthwD = self.embed(rearrange(frames_NCHW, "N C H W -> N C 1 H W"))
        num_frames, *grid, _ = embedded_NthwD.shape
        x_NLD = rearrange(embedded_NthwD, "N t h w D -> N (t h w) D") + self.encoder_positions(tuple(grid))
        if self.config.num_queries is not None:
            # Queries first: what is kept of the answer is then the front of each row.
            x_NLD = torch.cat([repeat(self.queries_QD, "Q D -> N Q D", N=num_frames), x_NLD], dim=1)
        answer_NLD = self.encoder_stack(x_NLD, generator=generator)
        latents_NLE = _wide(self.to_latents, answer_NLD[:, : self.config.num_queries])
        if self.spectrum is None:
            return latents_NLE
        with torch.autocast(latents_NLE.device.type, enabled=False):
            pixels_NXC, size = self._pixel_rows(frames_NCHW)
            return self.spectrum.latents(pixels_NXC, latents_NLE, size, self.quantizer)

    def _pixel_rows(self, frames_NCHW: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """(N, H*W, C) of whole patches, and (1, H, W)."""
        whole_NCTHW = padded(frames_NCHW[:, :, None], self.patch_size)
        return rearrange(whole_NCTHW, "N C 1 H W -> N (H W) C"), (1, whole_NCTHW.shape[3], whole_NCTHW.shape[4])

    @torch.no_grad()
    def start_spectral(self, videos: Iterable[Tensor]) -> None:
        """Become the transform codec that suits the frames of these videos (3, T, H, W): see ``spectrum``."""
        if self.spectrum is None:
            raise InputError("start_spectral needs a tokenizer that is spectral")

        def rows() -> Iterator[tuple[Tensor, tuple[int, int, int]]]:
            for video in videos:
                (clip,) = self.checked_videos([video])
                pixels_NXC, size = self._pixel_rows(rearrange(clip, "C T H W -> T C H W"))
                yield from ((pixels_XC, size) for pixels_XC in pixels_NXC)

        self.spectrum.start(rows(), self.quantizer)
        for layer in (self.to_latents, self.to_pixels):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.convs is not None:
            self.convs.start_at_zero()

    def _pixels(
        self,
        codes_NLE: Tensor,
        size: tuple[int, int],
        is_kept_NL: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(N, L, E) -> (N, C, H, W), not clamped. Codes that are not kept are hidden from the stack."""
        _, ph, pw = self.patch_size
        grid = Grid.of(1, *size, self.patch_size)
        waves_NPX: Tensor | None = None
        places_PD = self.decoder_positions((1, grid.h, grid.w))
        x_NLD = self.from_codes(codes_NLE)
        if self.config.num_queries is None:
            answer_NPD = self.decoder_stack(x_NLD + places_PD, generator=generator)
        else:
            num_frames, count, _ = x_NLD.shape
            masks_NPD = repeat(self.mask_D + places_PD, "P D -> N P D", N=num_frames)
            waves_NPX = self._waves(codes_NLE, is_kept_NL, (1, grid.h * ph, grid.w * pw))
            if waves_NPX is not None:
                masks_NPD = masks_NPD + self.from_cells(waves_NPX)
            x_NLD = torch.cat([x_NLD + self.code_positions_QD[:count], masks_NPD], dim=1)
            seen_NL = None if is_kept_NL is None else F.pad(is_kept_NL, (0, grid.num_cells), value=True)
            answer_NPD = self.decoder_stack(x_NLD, valid_mask=seen_NL, generator=generator)[:, count:]
        pixels_NPX = _wide(self.to_pixels, answer_NPD)
        if waves_NPX is not None:
            pixels_NPX = pixels_NPX + waves_NPX
        frames_NCHW = rearrange(pixels_NPX, "N (h w) (ph pw C) -> N C (h ph) (w pw)", h=grid.h, ph=ph, pw=pw)
        if self.convs is not None:
            features_NthwD = rearrange(answer_NPD, "N (h w) D -> N 1 h w D", h=grid.h)
            frames_NCHW = frames_NCHW + self.convs(features_NthwD, frames_NCHW[:, :, None])[:, :, 0]
        return frames_NCHW[..., : size[0], : size[1]]

    def _waves(self, codes_NLE: Tensor, is_kept_NL: Tensor | None, size: tuple[int, int, int]) -> Tensor | None:
        """(N, P, values of a patch): what the spectrum alone makes of the kept codes; None without one."""
        if self.spectrum is None:
            return None
        _, ph, pw = self.patch_size
        with torch.autocast(codes_NLE.device.type, enabled=False):
            kept = codes_NLE.float() if is_kept_NL is None else codes_NLE.float() * is_kept_NL[..., None]
            pixels_NXC = self.spectrum.cells(kept, size, self.quantizer)
        return rearrange(
            pixels_NXC, "N (h ph w pw) C -> N (h w) (ph pw C)", h=size[1] // ph, ph=ph, w=size[2] // pw, pw=pw
        )

    def _kept(self, latents_NLE: Tensor, token_counts: TokenCounts, generator: torch.Generator | None) -> Tensor | None:
        """(N, Q) bool, the prefix that each picture keeps; None where all are kept.

        Nested dropout (arXiv 1402.0915, section 3) with uniform counts: the Tail Token Drop of One-D-Piece, arXiv
        2501.10064; FlexTok, arXiv 2502.13967, section 3.
        """
        (num_frames, most), device = latents_NLE.shape[:2], latents_NLE.device
        if token_counts is None:
            if not (self.training and self.config.nested_dropout):
                return None
            source = device if generator is None else generator.device
            counts_N = torch.randint(1, most + 1, (num_frames,), generator=generator, device=source)
            if self.config.whole_share:
                is_whole_N = torch.rand(num_frames, generator=generator, device=source) < self.config.whole_share
                counts_N = torch.where(is_whole_N, most, counts_N)
        elif isinstance(token_counts, int):
            if self._checked_count(token_counts) == most:
                return None
            counts_N = torch.full((num_frames,), token_counts, device=device)
        else:
            counts_N = torch.as_tensor(token_counts)
            if counts_N.shape != (num_frames,) or counts_N.is_floating_point():
                raise InputError(
                    f"token_counts must be {num_frames} whole numbers, one a picture, got {counts_N.dtype} "
                    f"{tuple(counts_N.shape)}"
                )
            if not torch.compiler.is_compiling():
                for count in (int(end) for end in counts_N.aminmax()):
                    self._checked_count(count)
        return torch.arange(most, device=device) < counts_N.to(device)[:, None]

    def _checked_count(self, count: int) -> int:
        """InputError unless a picture can keep so many tokens."""
        if self.config.num_queries is None:
            raise InputError("token_counts needs a tokenizer with queries; this one has a token for every patch")
        if not 1 <= count <= self.config.num_queries:
            raise InputError(f"token_counts must lie in [1, {self.config.num_queries}], got {count}")
        return count

    # Videos to Tokens and back.

    def encode(self, videos: Sequence[Any], *, token_counts: int | Sequence[int] | None = None) -> list[Tokens]:
        """Videos (3, T, H, W), float in [-1, 1] or uint8 -> one Tokens a video, in order.

        Args:
            videos: sizes may differ.
            token_counts: ids that each frame of a video keeps, one number or one a video: the first ones, so that a
                shorter row is a prefix of a longer one. Prefixes say little unless the tokenizer was trained with
                ``nested_dropout``.

        Raises:
            InputError: a video is not finite, out of range or of another shape; the weights give latents that are
            not finite.
        """
        clips = self.checked_videos(videos)
        counts = self._counts(token_counts, len(clips))
        frames = [(index, t) for index, clip in enumerate(clips) for t in range(clip.shape[1])]
        ids: list[list[Any]] = [[] for _ in clips]
        with self.running():
            for _, group in in_groups([tuple(clips[index].shape[2:]) for index, _ in frames], self._at_once):
                places = [frames[place] for place in group]
                for (index, _), ids_L in zip(places, self._ids(torch.stack([clips[i][:, t] for i, t in places]))):
                    ids[index].append(ids_L[: counts[index]])
        fingerprint = self.fingerprint
        return [self._tokens(np.concatenate(rows), clip, fingerprint) for rows, clip in zip(ids, clips)]

    def decode(self, tokens: Sequence[Tokens]) -> list[Tensor]:
        """One video (3, T, H, W) a Tokens, float32 in [-1, 1] on the CPU, of the size that was encoded.

        Raises:
            MismatchError: the tokens are of another tokenizer, or their number does not fit their frames.
        """
        self.check_tokens(tokens)
        ids = [self._rows(item) for item in tokens]
        videos = [torch.empty(3, *item.size) for item in tokens]
        frames = [(index, t) for index, item in enumerate(tokens) for t in range(item.size[0])]
        keys = [(*tokens[index].size[1:], ids[index].shape[1]) for index, _ in frames]
        with self.running():
            for (height, width, _), group in in_groups(keys, self._at_once):
                places = [frames[place] for place in group]
                ids_NL = torch.from_numpy(np.stack([ids[i][t] for i, t in places])).to(self.device)
                frames_NCHW = self._pixels(self.quantizer.codes(ids_NL), (height, width)).clamp(-1, 1).cpu()
                for (index, t), frame_CHW in zip(places, frames_NCHW):
                    videos[index][:, t] = frame_CHW
        return videos

    def _at_once(self, key: tuple[int, ...]) -> int:
        """Pictures in one pass, of size (H, W, ...)."""
        height, width = key[:2]
        cells = Grid.of(1, height, width, self.patch_size).num_cells
        return _TOKENS_AT_ONCE // (cells + (self.config.num_queries or 0))

    def _ids(self, frames_NCHW: Tensor) -> Any:
        """(N, C, H, W) -> numpy int64 (N, L)."""
        latents_NLE = self._latents(frames_NCHW)
        if not latents_NLE.isfinite().all():
            raise InputError(
                "the encoder gave latents that are not finite; its weights are damaged or its training diverged"
            )
        return self.quantizer(latents_NLE).ids.cpu().numpy()

    def _tokens(self, ids_L: Any, clip_CTHW: Tensor, fingerprint: str) -> Tokens:
        _, T, H, W = clip_CTHW.shape
        return Tokens(
            ids_L=ids_L,
            layout=self.layout,
            grid=Grid.of(T, H, W, self.patch_size),
            size=(T, H, W),
            codebook_size=self.codebook_size,
            tokenizer=self.name,
            fingerprint=fingerprint,
            meta=self.reference,
        )

    def _counts(self, token_counts: int | Sequence[int] | None, num_videos: int) -> list[int | None]:
        """How many ids each video's frames keep; None is all."""
        if token_counts is None:
            return [None] * num_videos
        most = self.config.num_queries
        if most is None:
            raise InputError("token_counts needs a tokenizer with queries; this one has a token for every patch")
        return list(checked_counts(token_counts, num_videos, default=most, most=most))

    def check_count(self, token_count: int | None) -> None:
        """InputError unless each frame can be asked for so many tokens."""
        self._counts(token_count, 1)

    def _rows(self, tokens: Tokens) -> Any:
        """numpy int64 (T, L); MismatchError unless the ids fill the frames."""
        frames, most = tokens.size[0], self.config.num_queries
        grid = Grid.of(*tokens.size, self.patch_size)
        if tokens.grid != grid:
            raise MismatchError(f"tokens of {tokens.size} (T, H, W) have the grid {grid}, these say {tokens.grid}")
        count, left = divmod(tokens.num_tokens, frames)
        if most is not None and (left or not 1 <= count <= most):
            raise MismatchError(
                f"{tokens.num_tokens} ids do not fill {frames} frames of 1 to {most} ids each, as many in every frame"
            )
        return tokens.ids_L.astype(np.int64).reshape(frames, count)


def _start(*shape: int) -> nn.Parameter:
    """A learned vector or table, drawn as ViT's positions are (arXiv 2010.11929)."""
    return nn.Parameter(drawn(torch.empty(*shape), std=0.02))


def _wide(layer: nn.Linear, x_NLD: Tensor) -> Tensor:
    """The layer in float32 even under autocast: ids and pixels are not to hang on the digits that bfloat16 drops."""
    with torch.autocast(x_NLD.device.type, enabled=False):
        out: Tensor = layer(x_NLD.float())
        return out
