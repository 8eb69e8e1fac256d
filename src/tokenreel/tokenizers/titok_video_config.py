"""Configuration of TiTok-Video, and its named sizes with their source."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenreel.errors import InputError
from tokenreel.quantize import FSQConfig, QuantizerConfig
from tokenreel.types import PatchSize, check_patch_size

from .configs import BlockOptions, Stack

__all__ = ["SIZES", "TiTokVideoConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TiTokVideoConfig:
    """Configuration of ``TiTokVideo``.

    Attributes:
        patch_size: (pt, ph, pw).
        encoder, decoder: sizes of the two stacks.
        blocks: how their blocks are built.
        quantizer: any of VQ, FSQ, LFQ.
        token_count: tokens of a segment where none are asked for.
        max_frames: frames of a segment, a multiple of pt; longer videos are coded as consecutive segments.
        max_extents: positions that rotary bands are spaced for: (tokens, t, h, w). Larger ones work.
        nested_dropout: in training each segment is decoded from its first k tokens alone, k uniform in 1 to its count,
            so that any prefix decodes (tail token drop, arXiv 2501.10064).
        head_channels: F of the convolutions that end the decoder, so that patches have no borders, see ``FrameConvs``;
            None: one linear map a patch.
        spectral: has a ``Spectrum``, from which ``start_spectral`` starts the tokens as waves. Needs FSQ.
        spectral_kinds: kinds of clips that have waves of their own, told by the first numbers of token 0: 1, or the
            product of the first few levels.
        spectral_tokens: how many tokens of a segment it starts.
    """

    patch_size: PatchSize
    encoder: Stack
    decoder: Stack
    quantizer: QuantizerConfig
    token_count: int
    max_frames: int
    max_extents: tuple[int, int, int, int]
    blocks: BlockOptions = field(default_factory=BlockOptions)
    nested_dropout: bool = False
    head_channels: int | None = None
    spectral: bool = False
    spectral_kinds: int = 1
    spectral_tokens: int = 512

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_size", check_patch_size(self.patch_size))
        object.__setattr__(self, "max_extents", tuple(self.max_extents))
        if self.token_count < 1:
            raise InputError(f"TiTokVideoConfig.token_count must be at least 1, got {self.token_count}")
        if self.spectral_kinds != 1 and not self.spectral:
            raise InputError(f"spectral_kinds ({self.spectral_kinds}) needs spectral=True")
        if self.head_channels is not None and self.head_channels < 1:
            raise InputError(f"head_channels must be at least 1, or None for a linear head, got {self.head_channels}")
        if self.spectral_tokens < 1:
            raise InputError(f"TiTokVideoConfig.spectral_tokens must be at least 1, got {self.spectral_tokens}")
        if self.max_frames < 1 or self.max_frames % self.patch_size[0]:
            raise InputError(
                f"TiTokVideoConfig.max_frames must be a multiple of the patch's {self.patch_size[0]} frames, "
                f"got {self.max_frames}"
            )
        if len(self.max_extents) != 4 or min(self.max_extents) < 1:
            raise InputError(
                "TiTokVideoConfig.max_extents must be four numbers of at least 1 (tokens, t, h, w), "
                f"got {self.max_extents}"
            )
        for name, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            stack.transformer(self.blocks)
            if stack.head_dim < 8 or stack.head_dim % 2:
                raise InputError(
                    f"TiTokVideoConfig.{name}.head_dim must be even and at least 8 (a rotary band for each of four "
                    f"axes), got {stack.head_dim}"
                )


def _named(dim: int, depth: int, *, num_kv_heads: int, mlp_dim: int) -> TiTokVideoConfig:
    """Width, depth, heads, MLP and gate of TiTok-Video's sizes of this name (github.com/NilanEkanayake/TiTok-Video,
    model/base/utils.py and transformer.py), its levels and patches (configs/small.yaml, configs/large.yaml), the fewest
    tokens and the most frames it is trained with (configs/small.yaml). Its residuals are KEEL's (arXiv 2601.19895);
    here they are plain, which learned faster than DeepNorm in short runs.
    """
    stack = Stack(dim=dim, depth=depth, num_heads=dim // 64, head_dim=64, mlp_dim=mlp_dim)
    return TiTokVideoConfig(
        patch_size=(4, 8, 8),
        encoder=stack,
        decoder=stack,
        blocks=BlockOptions(mlp="geglu", norm="rms", num_kv_heads=num_kv_heads, gate="channel", bias=False),
        quantizer=FSQConfig(levels=(7, 7, 7, 5, 5)),
        token_count=128,
        max_frames=24,
        max_extents=(1024, 32, 64, 64),
    )


SIZES: dict[str, TiTokVideoConfig] = {
    "tiny": _named(256, 4, num_kv_heads=2, mlp_dim=704),
    "small": _named(512, 8, num_kv_heads=2, mlp_dim=1376),
    "base": _named(768, 12, num_kv_heads=4, mlp_dim=2048),
    "large": _named(1024, 24, num_kv_heads=4, mlp_dim=2752),
}
