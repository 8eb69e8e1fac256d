"""(1) The patchnizer: patches as tokens, lossless. Ids are the bytes of the pixels, patch by patch.

numpy only; torch is imported only where a torch tensor comes in.

Letters: C channels (3), T frames, H W pixels, L ids = t*h*w * pt*ph*pw*3.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from einops import rearrange

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.files import whole_directory
from tokenreel.patches.patchify import patchify, unpatchify
from tokenreel.types import Grid, PatchSize, Tokens, check_patch_size

from .base import check_fingerprint, fingerprint_of

__all__ = ["RawTokenizer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTokenizer:
    """Pixels as bytes in the order of patches: 256 codes, 24 bits a pixel, exact.

    Causal where pt = 1; with a larger pt, a step of the grid waits for its frames. Padding repeats the edge and is
    cropped again.
    """

    patch_size: PatchSize = (1, 16, 16)
    name: ClassVar[str] = "raw"
    pixels: ClassVar[Literal["float", "uint8"]] = "uint8"
    codebook_size: ClassVar[int] = 256
    segment_steps: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_size", check_patch_size(self.patch_size))

    @classmethod
    def from_options(cls, options: str) -> Self:
        """``""`` or a patch size such as ``1,16,16``."""
        if not options:
            return cls()
        try:
            return cls(patch_size=tuple(int(part) for part in options.split(",")))  # type: ignore[arg-type]
        except ValueError as error:
            raise InputError(f"the raw tokenizer takes a patch size such as raw:1,16,16, got raw:{options}") from error

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """From the values of ``config``."""
        if "patch_size" not in config:
            raise FormatError("the configuration of a raw tokenizer must have a patch_size")
        return cls(patch_size=tuple(config["patch_size"]))

    @property
    def first_frames(self) -> int:
        """pt."""
        return self.patch_size[0]

    @property
    def config(self) -> dict[str, Any]:
        """What defines it."""
        return {"patch_size": list(self.patch_size)}

    @property
    def reference(self) -> dict[str, Any]:
        """What token files carry."""
        return {"tokenizer_config": self.config}

    def num_tokens_of(self, size: tuple[int, int, int]) -> int:
        """Bytes of a video of (T, H, W), padding included."""
        pt, ph, pw = self.patch_size
        return Grid.of(*size, self.patch_size).num_cells * pt * ph * pw * 3

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its name and patch size."""
        return fingerprint_of(self.name, self.config)

    def save(self, folder: str | Path) -> None:
        """Write ``config.json``; there are no weights."""
        with whole_directory(folder) as temporary:
            (temporary / "config.json").write_text(json.dumps({"tokenizer": self.name, **self.config}, indent=2))

    def encode(self, videos: Sequence[Any]) -> list[Tokens]:
        """Videos (C, T, H, W), uint8 or float in [-1, 1] -> Tokens of layout ``bytes``."""
        return [self._encoded(_frames(video)) for video in videos]

    def decode(self, tokens: Sequence[Tokens]) -> list[npt.NDArray[np.uint8]]:
        """Tokens -> uint8 videos (C, T, H, W), bit-exact."""
        for item in tokens:
            check_fingerprint(self, item)
        return [self._decoded(item) for item in tokens]

    def encoder(self) -> RawEncoder:
        """A stream; gives tokens a grid step at a time."""
        return RawEncoder(self)

    def decoder(self) -> RawDecoder:
        """A stream; gives a video for each part."""
        return RawDecoder(self)

    def _encoded(self, frames_THWC: npt.NDArray[np.uint8]) -> Tokens:
        size = (frames_THWC.shape[0], frames_THWC.shape[1], frames_THWC.shape[2])
        return Tokens(
            ids_L=patchify(frames_THWC, self.patch_size).reshape(-1),
            layout="bytes",
            grid=Grid.of(*size, self.patch_size),
            size=size,
            codebook_size=self.codebook_size,
            tokenizer=self.name,
            fingerprint=self.fingerprint,
            meta=self.reference,
        )

    def _decoded(self, tokens: Tokens) -> npt.NDArray[np.uint8]:
        pt, ph, pw = self.patch_size
        values = pt * ph * pw * 3
        if tokens.num_tokens != tokens.grid.num_cells * values:
            raise MismatchError(
                f"{tokens.num_tokens} bytes do not fill the grid {tokens.grid} of {pt}x{ph}x{pw} patches "
                f"({tokens.grid.num_cells * values} expected)"
            )
        frames = unpatchify(tokens.ids_L.reshape(-1, values), self.patch_size, tokens.size)
        return rearrange(frames, "T H W C -> C T H W").astype(np.uint8, copy=False)


class RawEncoder:
    """Holds at most pt - 1 frames back."""

    def __init__(self, tokenizer: RawTokenizer) -> None:
        self.tokenizer = tokenizer
        self._held: npt.NDArray[np.uint8] | None = None

    def push(self, video_CTHW: Any) -> list[Tokens]:
        """More frames; the tokens of all complete grid steps."""
        frames = _frames(video_CTHW)
        if self._held is not None:
            if self._held.shape[1:] != frames.shape[1:]:
                raise MismatchError(
                    f"the frames of one clip must have one size, got {frames.shape[1:3]} after {self._held.shape[1:3]}"
                )
            frames = np.concatenate([self._held, frames])
        complete = len(frames) - len(frames) % self.tokenizer.patch_size[0]
        self._held = frames[complete:].copy() if complete < len(frames) else None
        return [self.tokenizer._encoded(frames[:complete])] if complete else []

    def finish(self) -> list[Tokens]:
        """The last, padded step, if frames are left."""
        held, self._held = self._held, None
        return [] if held is None else [self.tokenizer._encoded(held)]


class RawDecoder:
    """Stateless: every part decodes alone."""

    def __init__(self, tokenizer: RawTokenizer) -> None:
        self.tokenizer = tokenizer

    def push(self, tokens: Tokens) -> list[npt.NDArray[np.uint8]]:
        """The video of this part."""
        return self.tokenizer.decode([tokens])

    def finish(self) -> list[npt.NDArray[np.uint8]]:
        """Nothing is held back."""
        return []


def _frames(video_CTHW: Any) -> npt.NDArray[np.uint8]:
    """(C, T, H, W), uint8 numpy or torch, or float in [-1, 1] -> uint8 (T, H, W, C)."""
    shape = tuple(getattr(video_CTHW, "shape", ()))
    if len(shape) != 4 or shape[0] != 3 or 0 in shape:
        raise InputError(f"a video must be (3, T, H, W), got shape {shape}")
    array = video_CTHW if isinstance(video_CTHW, np.ndarray) else video_CTHW.detach().cpu().numpy()
    frames = rearrange(array, "C T H W -> T H W C")
    if frames.dtype == np.uint8:
        return frames
    from tokenreel.media.pixels import from_float

    if not np.isfinite(frames).all():
        raise InputError("the video holds pixels that are not finite (NaN or infinity)")
    return from_float(frames)
