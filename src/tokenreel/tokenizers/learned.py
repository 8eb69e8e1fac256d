"""What all learned tokenizers share: the protocol on a saved model, and checks before work.

Letters: C channels (3), T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from tokenreel.errors import InputError, MismatchError
from tokenreel.quantize import Quantizer
from tokenreel.types import Layout, PatchSize, Tokens

from .base import Reconstruction, StreamDecoder, StreamEncoder, check_reading
from .card import model_card
from .configs import to_values
from .saved import CONFIG_NAME, WEIGHTS_NAME, Precision, SavedModel

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "LearnedTokenizer", "Precision"]

_MOST_PIXELS = 1 << 27  # of a frame; 1-D tokens do not bound it by their number
_MARGIN = 1e-3  # pixels may pass [-1, 1] by so much; resizing filters do


class LearnedTokenizer(SavedModel):
    """Base of the tokenizers with weights: a torch module that satisfies the ``Tokenizer`` protocol.

    ``encode`` and ``decode`` run in eval mode without gradients, whatever mode the module is in, in float32 unless
    ``precision`` says otherwise. ``forward`` is for training and follows the mode, autocast and device it is run in.

    Attributes:
        precision: ``bf16`` runs the transformers in bfloat16 (autocast); latents and quantizers stay in float32.
        encoder_parts: names of the modules up to the quantizer; what a decoder-only stage freezes.
        source: where it was loaded from, kept in tokens so that they find it again; None if it never was.
    """

    kind: ClassVar[str] = "tokenizer"
    encoder_parts: ClassVar[tuple[str, ...]]
    quantizer: Quantizer
    pixels: ClassVar[Literal["float", "uint8"]] = "float"

    # The parts that a family fills in.

    def forward(self, *args: Any, **kwargs: Any) -> Reconstruction:
        """Videos -> ``Reconstruction``, for training."""
        raise NotImplementedError

    @property
    def quantizer_size(self) -> int:
        """K of the family's quantizer."""
        raise NotImplementedError

    @property
    def layout(self) -> Layout:
        """Of its tokens."""
        raise NotImplementedError

    @property
    def patch_size(self) -> PatchSize:
        """(pt, ph, pw)."""
        size: PatchSize = self.config.patch_size
        return size

    @property
    def first_frames(self) -> int:
        """Frames that the first step of the grid stands for."""
        return self.patch_size[0]

    @property
    def segment_steps(self) -> int:
        """Grid steps that are coded as one piece."""
        return 1

    @property
    def last_weight(self) -> Tensor:
        """Of the map to pixels; an adaptive adversarial weight is measured there."""
        raise NotImplementedError

    def num_tokens_of(self, size: tuple[int, int, int]) -> int:
        """How many ids a video of (T, H, W) becomes."""
        raise NotImplementedError

    def encode(self, videos: Sequence[Any]) -> list[Tokens]:
        """Videos (3, T, H, W) in [-1, 1] or uint8, sizes may differ -> one Tokens a video, in order."""
        raise NotImplementedError

    def decode(self, tokens: Sequence[Tokens]) -> list[Any]:
        """Tokens -> videos (3, T, H, W) float32 in [-1, 1] on the CPU, in order, of the sizes that were encoded."""
        raise NotImplementedError

    def encoder(self) -> StreamEncoder:
        """A stream over one clip."""
        raise NotImplementedError

    def decoder(self) -> StreamDecoder:
        """A stream over one clip."""
        raise NotImplementedError

    # What follows from them.

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.quantizer_size

    @property
    def reference(self) -> dict[str, Any]:
        """What token files carry so that this tokenizer is found again."""
        source = {} if self.source is None else {"tokenizer_source": self.source}
        return {"tokenizer_config": to_values(self.config), **source}

    def card(self, fingerprint: str) -> str:
        """The text of ``README.md`` beside the weights."""
        return model_card(self, fingerprint)

    def checked_videos(self, videos: Sequence[Any]) -> list[Tensor]:
        """Videos as float32 (3, T, H, W) on this device; InputError for anything else, before any work is done."""
        shape = getattr(videos, "shape", ())
        if len(shape) == 4:
            raise InputError(f"encode takes a list of videos (C, T, H, W), got one of shape {tuple(shape)}")
        return [_checked(video, index).to(self.device) for index, video in enumerate(videos)]

    def check_tokens(self, tokens: Sequence[Tokens]) -> None:
        """MismatchError unless all of these can be decoded here."""
        if isinstance(tokens, Tokens):
            raise InputError("decode takes a list of Tokens, got one; write decode([tokens])")
        for item in tokens:
            check_reading(self, item, self.layout)
            if item.size[1] * item.size[2] > _MOST_PIXELS:
                raise MismatchError(f"tokens of frames of {item.size[2]}x{item.size[1]} pixels; is their file damaged?")


def _checked(video: Any, index: int) -> Tensor:
    shape = tuple(getattr(video, "shape", ()))
    which = f"video {index}"
    if len(shape) != 4 or shape[0] != 3 or 0 in shape:
        raise InputError(f"{which} must be (3, T, H, W) with at least one frame and pixel, got shape {shape}")
    if isinstance(video, np.ndarray):
        if video.dtype.kind not in "fiub":
            raise InputError(f"{which} must be float in [-1, 1] or uint8, got {video.dtype}")
        video = torch.from_numpy(np.ascontiguousarray(video, dtype=video.dtype.newbyteorder("=")))
    tensor: Tensor = video
    if tensor.dtype == torch.uint8:
        return tensor.float().div_(127.5).sub_(1)
    if not tensor.is_floating_point():
        raise InputError(f"{which} must be float in [-1, 1] or uint8, got {tensor.dtype}")
    lowest, highest = (float(end) for end in tensor.detach().aminmax())
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise InputError(f"{which} holds pixels that are not finite (NaN or infinity)")
    if max(-lowest, highest) > 1 + _MARGIN:
        raise InputError(
            f"{which} must lie in [-1, 1], found {lowest:g} to {highest:g}; tokenreel.to_video converts uint8 frames"
        )
    return tensor.float()
