"""TiTok-Video: clips of any sizes, lengths and token counts in one packed sequence, without padding.

Letters: B batch, C channels (3), T H W pixels, t h w grid, P values of a patch, N packed patches, Q packed tokens,
E codebook_dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.errors import InputError, MismatchError
from tokenreel.quantize import build_quantizer
from tokenreel.types import Grid, Layout, Tokens

from .base import Reconstruction
from .counts import MOST_TOKENS, checked_counts
from .frame_convs import FrameConvs
from .learned import LearnedTokenizer
from .spectrum import Spectrum
from .titok_video_config import SIZES, TiTokVideoConfig
from .titok_video_pack import Analysis, Piece, Synthesis, alike, in_order, in_passes, patches_of, videos_of
from .titok_video_stream import TiTokVideoDecoder, TiTokVideoEncoder

__all__ = ["TiTokVideo", "TiTokVideoConfig"]

TokenCounts = int | Sequence[int] | Tensor | None

_ROWS_AT_ONCE = 1 << 14  # patches and tokens in one pass; a longer segment runs alone


class TiTokVideo(LearnedTokenizer):
    """Videos to a free number of tokens without a grid, many clips in one pass.

    The encoder reads [patches | queries], its outputs at the queries are the latents; the decoder reads
    [mask vectors | codes], its outputs at the masks are the patches (TiTok, arXiv 2406.07550, section 3.2). Clips stand
    end to end and do not see each other; M-RoPE tells tokens and cells apart. Token count, frames and resolution are
    chosen for each clip when it is encoded.
    """

    name: ClassVar[str] = "titok_video"
    config_type: ClassVar[type[Any]] = TiTokVideoConfig
    sizes: ClassVar[Mapping[str, TiTokVideoConfig]] = SIZES
    summary: ClassVar[str] = "TiTok-Video: packed clips of any size to any number of 1-D tokens; FSQ and M-RoPE"
    encoder_parts: ClassVar[tuple[str, ...]] = ("analysis", "quantizer", "spectrum")
    papers: ClassVar[tuple[str, ...]] = ("2406.07550", "2309.15505", "2409.12191", "2501.10064")

    config: TiTokVideoConfig

    def __init__(self, config: TiTokVideoConfig) -> None:
        super().__init__(config)
        self.quantizer = build_quantizer(config.quantizer)
        values, width = 3 * prod(config.patch_size), self.quantizer.codebook_dim
        self.analysis = Analysis(config.encoder.transformer(config.blocks), config.max_extents, values, width)
        self.synthesis = Synthesis(config.decoder.transformer(config.blocks), config.max_extents, values, width)

        self.convs: FrameConvs | None = None
        if config.head_channels is not None:
            self.convs = FrameConvs(
                dim=config.decoder.dim, patch_size=config.patch_size, channels=config.head_channels, others=0
            )
        self.spectrum: Spectrum | None = None
        if config.spectral:
            self.spectrum = Spectrum(
                num_tokens=config.spectral_tokens,
                channels=3,
                cell_values=3,
                quantizer=self.quantizer,
                kinds=config.spectral_kinds,
            )
            self.from_cells = nn.Linear(values, config.decoder.dim, bias=False)

    def is_kept_whole(self, name: str) -> bool:
        """The spectrum, a few weights: rounded to float16 they changed all ids that changed."""
        return name.startswith("spectrum.")

    @property
    def quantizer_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def layout(self) -> Layout:
        """``queries``."""
        return "queries"

    @property
    def segment_steps(self) -> int:
        """Grid steps of a segment of ``max_frames`` frames."""
        return self.config.max_frames // self.patch_size[0]

    @property
    def token_count(self) -> int:
        """Of a segment, where no other is asked for."""
        return self.config.token_count

    @property
    def last_weight(self) -> Tensor:
        """Of the map to pixels."""
        return self.synthesis.head.weight if self.convs is None else self.convs.last.weight

    def num_segments_of(self, num_frames: int) -> int:
        """Segments of ``max_frames`` that a video is cut into, the last one shorter."""
        return -(-num_frames // self.config.max_frames)

    def num_tokens_of(self, size: tuple[int, int, int]) -> int:
        """How many ids a video of (T, H, W) becomes where no count is asked for."""
        return self.num_segments_of(size[0]) * self.config.token_count

    def encode(self, videos: Sequence[Any], *, token_counts: TokenCounts = None) -> list[Tokens]:
        """Videos (C, T, H, W), sizes may differ -> one Tokens a video, in order.

        Args:
            videos: float in [-1, 1] or uint8.
            token_counts: ids of each segment of ``max_frames`` frames: one number for all videos, or one a video; by
                default ``config.token_count``.

        Raises:
            InputError: a video or a count is none, or the latents are not finite.
        """
        clips = self.checked_videos(videos)
        counts = self._counts(token_counts, len(clips))
        segments, pieces = self._cut(clips, counts)
        ids: list[Any] = [None] * len(pieces)
        with self.running():
            for chosen in in_passes(pieces, _ROWS_AT_ONCE):
                taken = [pieces[index] for index in chosen]
                latents_QE = self._latents(patches_of([segments[index] for index in chosen], self.patch_size), taken)
                if not latents_QE.isfinite().all():
                    raise InputError("the encoder's latents are not finite; are the weights damaged?")
                found = self.quantizer(latents_QE).ids.cpu().numpy()
                bounds = list(accumulate(piece.token_count for piece in taken))
                for index, part in zip(chosen, np.split(found, bounds[:-1])):
                    ids[index] = part
        sizes = [_size(clip) for clip in clips]
        ends = list(accumulate(self.num_segments_of(size[0]) for size in sizes))
        fingerprint = self.fingerprint
        return [
            Tokens(
                ids_L=np.concatenate(ids[end - self.num_segments_of(size[0]) : end]),
                layout=self.layout,
                grid=Grid.of(*size, self.patch_size),
                size=size,
                codebook_size=self.codebook_size,
                tokenizer=self.name,
                fingerprint=fingerprint,
                meta=self.reference,
            )
            for end, size in zip(ends, sizes)
        ]

    def decode(self, tokens: Sequence[Tokens]) -> list[Tensor]:
        """One video (C, T, H, W) in [-1, 1] on the CPU for each Tokens, in order.

        Raises:
            MismatchError: tokens of another tokenizer, or as many ids as no count gives.
        """
        self.check_tokens(tokens)
        counts = [self._count_of(item) for item in tokens]
        pieces = [piece for item, count in zip(tokens, counts) for piece in self._pieces(item.size, count)]
        ids_Q = [part for item, count in zip(tokens, counts) for part in item.ids_L.reshape(-1, count)]
        videos: list[Any] = [None] * len(pieces)
        with self.running():
            for chosen in in_passes(pieces, _ROWS_AT_ONCE):
                taken = [pieces[index] for index in chosen]
                found = np.concatenate([ids_Q[index] for index in chosen]).astype(np.int64)
                patches_NP = self._patches(self.quantizer.codes(torch.from_numpy(found).to(self.device)), taken)
                parts = videos_of(patches_NP.float().clamp_(-1, 1), taken, self.patch_size)
                for index, part in zip(chosen, parts):
                    videos[index] = part.cpu()
        # Copies, so that what is returned may enter autograd.
        return [video.clone() for video in self._joined(videos, [item.size for item in tokens])]

    def without_tail(self, tokens: Sequence[Tokens], token_count: int) -> list[Tokens]:
        """The first ``token_count`` ids of every segment; they decode like any others (trained: nested_dropout)."""
        self.check_tokens(tokens)
        counts = [self._count_of(item) for item in tokens]
        if not 1 <= token_count <= min(counts, default=token_count):
            raise InputError(f"token_count must lie in 1 to {min(counts)}, the fewest of a segment, got {token_count}")
        return [
            replace(item, ids_L=np.ascontiguousarray(item.ids_L.reshape(-1, count)[:, :token_count]).reshape(-1))
            for item, count in zip(tokens, counts)
        ]

    def encoder(self, *, token_count: int | None = None) -> TiTokVideoEncoder:
        """A stream over one clip; gives tokens a segment at a time, ``token_count`` each."""
        (count,) = self._counts(token_count, 1)
        return TiTokVideoEncoder(self, count)

    def decoder(self) -> TiTokVideoDecoder:
        """A stream over one clip; takes parts of whole segments."""
        return TiTokVideoDecoder(self)

    def forward(
        self,
        videos: Sequence[Tensor] | Tensor,
        *,
        token_counts: TokenCounts = None,
        generator: torch.Generator | None = None,
    ) -> Reconstruction:
        """All videos in one pack, for training.

        Args:
            videos: (C, T, H, W) each, sizes may differ, or (B, C, T, H, W); float in [-1, 1].
            token_counts: as in ``encode``.
            generator: of everything that is random in training; None takes torch's own.

        Returns:
            video: a tuple of (C, T, H, W), or (B, C, T, H, W) where that was given; latents and codes (Q, E), ids (Q,)
            of all videos end to end, in order.
        """
        clips = list(videos)
        if not clips:
            raise InputError("forward needs at least one video, got none")
        segments, pieces = self._cut(clips, self._counts(token_counts, len(clips)))
        (order,) = in_passes(pieces, sum(piece.num_rows for piece in pieces))
        taken = [pieces[index] for index in order]
        patches_NP = patches_of([segments[index] for index in order], self.patch_size)
        latents_QE = self._latents(patches_NP, taken, generator)
        latents_QE = in_order(latents_QE, [piece.token_count for piece in taken], _inverse(order))
        quantized = self.quantizer(latents_QE, generator=generator)
        rows = self._synthesised(quantized.codes, pieces, generator)
        video = self._joined(rows, [_size(clip) for clip in clips])
        return Reconstruction(
            video=torch.stack(video) if isinstance(videos, Tensor) else tuple(video),
            latents=latents_QE,
            codes=quantized.codes,
            ids=quantized.ids,
            aux=quantized.aux_losses,
        )

    def _latents(self, patches_NP: Tensor, pieces: Sequence[Piece], generator: torch.Generator | None = None) -> Tensor:
        """Patches of pieces end to end -> latents (Q, E), float32."""
        latents_QE: Tensor = self.analysis(patches_NP, pieces, generator)
        if self.spectrum is None:
            return latents_QE
        patches = torch.split(patches_NP, [piece.num_patches for piece in pieces])
        parts = list(torch.split(latents_QE, [piece.token_count for piece in pieces]))
        with torch.autocast(latents_QE.device.type, enabled=False):
            for piece, places in alike(pieces):
                found_BQE = self.spectrum.latents(
                    self._pixel_rows(torch.stack([patches[place] for place in places]), piece),
                    torch.stack([parts[place] for place in places]),
                    self._pixel_size(piece),
                    self.quantizer,
                )
                for place, found_QE in zip(places, found_BQE):
                    parts[place] = found_QE
        return torch.cat(parts)

    def _patches(self, codes_QE: Tensor, pieces: Sequence[Piece], generator: torch.Generator | None = None) -> Tensor:
        """Codes of pieces end to end -> patches (N, P)."""
        waves_NP = self._waves(codes_QE, pieces)
        start_ND = None if waves_NP is None else self.from_cells(waves_NP)
        features_ND = self.synthesis.features(codes_QE, pieces, generator, start_ND=start_ND)
        patches_NP: Tensor = self.synthesis.head(features_ND)
        patches_NP = patches_NP if waves_NP is None else patches_NP + waves_NP
        return patches_NP if self.convs is None else self._without_borders(features_ND, patches_NP, pieces)

    def _waves(self, codes_QE: Tensor, pieces: Sequence[Piece]) -> Tensor | None:
        """(N, P): what the spectrum alone makes of the codes; None without one."""
        if self.spectrum is None:
            return None
        parts = torch.split(codes_QE, [piece.token_count for piece in pieces])
        drawn: list[Any] = [None] * len(pieces)
        with torch.autocast(codes_QE.device.type, enabled=False):
            for piece, places in alike(pieces):
                codes_BQE = torch.stack([parts[place] for place in places])
                pixels_BXC = self.spectrum.cells(codes_BQE, self._pixel_size(piece), self.quantizer)
                for place, pixels_XC in zip(places, pixels_BXC):
                    drawn[place] = self._patch_rows(pixels_XC, piece)
        return torch.cat(drawn)

    def _without_borders(self, features_ND: Tensor, patches_NP: Tensor, pieces: Sequence[Piece]) -> Tensor:
        """(N, P) -> (N, P) after the convolutions, which see all of a piece's step."""
        assert self.convs is not None
        lengths = [piece.num_patches for piece in pieces]
        features, patches = torch.split(features_ND, lengths), list(torch.split(patches_NP, lengths))
        for piece, places in alike(pieces):
            t, h, w, _ = piece
            x_BthwD = rearrange(
                torch.stack([features[place] for place in places]), "B (t h w) D -> B t h w D", t=t, h=h, w=w
            )
            drawn_BNP = torch.stack([patches[place] for place in places])
            size = self._pixel_size(piece)
            video_BCTHW = rearrange(
                self._pixel_rows(drawn_BNP, piece), "B (T H W) C -> B C T H W", T=size[0], H=size[1]
            )
            more_BCTHW = self.convs(x_BthwD, video_BCTHW)
            for place, more_CTHW in zip(places, more_BCTHW):
                patches[place] = patches[place] + patches_of([more_CTHW], self.patch_size)
        return torch.cat(patches)

    def _pixel_size(self, piece: Piece) -> tuple[int, int, int]:
        """(T, H, W) of a piece, padding included."""
        pt, ph, pw = self.patch_size
        return piece.t * pt, piece.h * ph, piece.w * pw

    def _patch_rows(self, pixels_XC: Tensor, piece: Piece) -> Tensor:
        """(T*H*W, C) -> (N, P)."""
        pt, ph, pw = self.patch_size
        return rearrange(
            pixels_XC, "(t pt h ph w pw) C -> (t h w) (pt ph pw C)",
            t=piece.t, h=piece.h, w=piece.w, pt=pt, ph=ph, pw=pw,
        )  # fmt: skip

    def _pixel_rows(self, patches_BNP: Tensor, piece: Piece) -> Tensor:
        """(B, N, P) -> (B, T*H*W, C)."""
        pt, ph, pw = self.patch_size
        return rearrange(
            patches_BNP, "B (t h w) (pt ph pw C) -> B (t pt h ph w pw) C",
            t=piece.t, h=piece.h, w=piece.w, pt=pt, ph=ph, pw=pw,
        )  # fmt: skip

    @torch.no_grad()
    def start_spectral(self, videos: Iterable[Tensor]) -> None:
        """Become the transform codec that suits segments of these videos (3, T, H, W): see ``spectrum``."""
        if self.spectrum is None:
            raise InputError("start_spectral needs a tokenizer that is spectral")

        def rows() -> Iterator[tuple[Tensor, tuple[int, int, int]]]:
            for video in videos:
                for part, piece in zip(*self._cut(self.checked_videos([video]), [1])):
                    patches_NP = patches_of([part], self.patch_size)
                    yield self._pixel_rows(patches_NP[None], piece)[0], self._pixel_size(piece)

        self.spectrum.start(rows(), self.quantizer)
        for layer in (self.analysis.project, self.synthesis.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.convs is not None:
            self.convs.start_at_zero()

    def _synthesised(
        self, codes_QE: Tensor, pieces: Sequence[Piece], generator: torch.Generator | None
    ) -> list[Tensor]:
        """Codes end to end -> the padded video of every piece, from a prefix of its codes where the tail is dropped."""
        parts = torch.split(codes_QE, [piece.token_count for piece in pieces])
        kept = self._kept(pieces, generator)
        (order,) = in_passes(kept, sum(piece.num_rows for piece in kept))
        codes = torch.cat([parts[index][: kept[index].token_count] for index in order])
        taken = [kept[index] for index in order]
        videos = videos_of(self._patches(codes, taken, generator).float(), taken, self.patch_size)
        return [videos[place] for place in _inverse(order)]

    def _kept(self, pieces: Sequence[Piece], generator: torch.Generator | None) -> list[Piece]:
        """The pieces with the token counts that nested dropout leaves them."""
        if not (self.training and self.config.nested_dropout):
            return list(pieces)
        device = None if generator is None else generator.device
        shares = torch.rand(len(pieces), generator=generator, device=device).tolist()
        return [piece._replace(token_count=1 + int(s * piece.token_count)) for piece, s in zip(pieces, shares)]

    def _cut(self, clips: Sequence[Tensor], counts: Sequence[int]) -> tuple[list[Tensor], list[Piece]]:
        """Every clip's segments, and what they are in a pack."""
        segments = [part for clip in clips for part in torch.split(clip, self.config.max_frames, dim=1)]
        return segments, [piece for clip, count in zip(clips, counts) for piece in self._pieces(_size(clip), count)]

    def _pieces(self, size: tuple[int, int, int], count: int) -> list[Piece]:
        """The segments of a video of (T, H, W)."""
        frames, height, width = size
        starts = range(0, frames, self.config.max_frames)
        lengths = [min(self.config.max_frames, frames - start) for start in starts]
        grids = [Grid.of(length, height, width, self.patch_size) for length in lengths]
        return [Piece(grid.t, grid.h, grid.w, count) for grid in grids]

    def _joined(self, parts: Sequence[Tensor], sizes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
        """Padded segments -> videos of these sizes."""
        videos, start = [], 0
        for frames, height, width in sizes:
            stop = start + self.num_segments_of(frames)
            video = parts[start] if stop == start + 1 else torch.cat(list(parts[start:stop]), dim=1)
            videos.append(video[:, :frames, :height, :width])
            start = stop
        return videos

    def _counts(self, token_counts: TokenCounts, num_videos: int) -> list[int]:
        """One count a video, checked."""
        return checked_counts(token_counts, num_videos, default=self.config.token_count, most=MOST_TOKENS)

    def _count_of(self, tokens: Tokens) -> int:
        """Ids of each segment, from what the tokens say of their size."""
        segments = self.num_segments_of(tokens.size[0])
        if tokens.num_tokens < segments or tokens.num_tokens % segments:
            raise MismatchError(
                f"{tokens.num_tokens} ids do not divide among the {segments} segments of {tokens.size[0]} frames "
                f"({self.config.max_frames} frames each); a part of a clip holds whole segments"
            )
        if tokens.grid != Grid.of(*tokens.size, self.patch_size):
            raise MismatchError(
                f"tokens of size {tokens.size} have a grid of {Grid.of(*tokens.size, self.patch_size)} patches of "
                f"{self.patch_size}, not {tokens.grid}"
            )
        return tokens.num_tokens // segments


def _size(video_CTHW: Tensor) -> tuple[int, int, int]:
    """(T, H, W)."""
    _, frames, height, width = video_CTHW.shape
    return frames, height, width


def _inverse(order: Sequence[int]) -> list[int]:
    """Where each index stands in the order."""
    return sorted(range(len(order)), key=order.__getitem__)
