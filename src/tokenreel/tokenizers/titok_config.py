"""Configuration of TiTok, and its named sizes with their sources."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenreel.errors import InputError
from tokenreel.quantize import FSQConfig, QuantizerConfig, VQConfig
from tokenreel.types import PatchSize, check_patch_size

from .configs import BlockOptions, Stack

__all__ = ["SIZES", "TiTokConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TiTokConfig:
    """Configuration of ``TiTok``.

    Attributes:
        image_size: (H, W) that the learned positions are made for. Other sizes are taken too: positions are stretched,
            sizes that do not divide are padded by the edge and cropped.
        patch_size: (1, ph, pw).
        num_queries: Q, tokens of a picture; None quantizes the patches themselves, one token each.
        encoder: size of the transformer that reads patches and queries.
        decoder: size of the transformer that reads codes and mask tokens.
        blocks: how the blocks of both are built.
        quantizer: any of ``quantize``.
        nested_dropout: in training each picture keeps a random prefix of its queries, so that any prefix decodes.
        whole_share: share of pictures that ``nested_dropout`` leaves whole.
        head_channels: F of the convolutions that end the decoder, so that patches have no borders, see ``FrameConvs``;
            None: one linear map a patch.
        spectral: has a ``Spectrum``, from which ``start_spectral`` starts the tokens as waves. Needs queries and FSQ.
        spectral_kinds: kinds of pictures that have waves of their own, told by the first numbers of token 0: 1, or the
            product of the first few levels.
    """

    image_size: tuple[int, int]
    patch_size: PatchSize
    num_queries: int | None
    encoder: Stack
    decoder: Stack
    quantizer: QuantizerConfig
    blocks: BlockOptions = field(default_factory=BlockOptions)
    nested_dropout: bool = False
    whole_share: float = 0.0
    head_channels: int | None = None
    spectral: bool = False
    spectral_kinds: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_size", check_patch_size(self.patch_size))
        object.__setattr__(self, "image_size", tuple(self.image_size))
        if self.patch_size[0] != 1:
            raise InputError(f"TiTok codes frames one by one: patch_size must be (1, ph, pw), got {self.patch_size}")
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise InputError(f"image_size must be (H, W) of at least 1, got {self.image_size}")
        if self.num_queries is not None and self.num_queries < 1:
            raise InputError(f"num_queries must be at least 1, or None for one token a patch, got {self.num_queries}")
        if self.nested_dropout and self.num_queries is None:
            raise InputError("nested_dropout needs num_queries: the tokens of patches have no order to cut")
        if not 0 <= self.whole_share <= 1:
            raise InputError(f"whole_share must lie in [0, 1], got {self.whole_share}")
        if self.spectral_kinds != 1 and not self.spectral:
            raise InputError(f"spectral_kinds ({self.spectral_kinds}) needs spectral=True")
        if self.head_channels is not None and self.head_channels < 1:
            raise InputError(f"head_channels must be at least 1, or None for a linear head, got {self.head_channels}")
        if self.spectral and self.num_queries is None:
            raise InputError("spectral needs num_queries: the tokens of patches have their own places")
        for stack in (self.encoder, self.decoder):
            stack.transformer(self.blocks)


def _vit(dim: int, depth: int) -> Stack:
    """Heads of 64 and an MLP of 4 D, as ViT has them (arXiv 2010.11929, table 1)."""
    return Stack(dim=dim, depth=depth, num_heads=dim // 64, head_dim=64, mlp_dim=4 * dim)


def _paper(dim: int, depth: int, num_queries: int) -> TiTokConfig:
    """arXiv 2406.07550, section 4: 256x256, patches of 16, 4,096 codes of 12 values, looked up by cosine."""
    return TiTokConfig(
        image_size=(256, 256),
        patch_size=(1, 16, 16),
        num_queries=num_queries,
        encoder=_vit(dim, depth),
        decoder=_vit(dim, depth),
        quantizer=VQConfig(codebook_size=4096, codebook_dim=12, l2_norm=True),
    )


SIZES: dict[str, TiTokConfig] = {
    # Small enough to train on a CPU: FSQ of 8^4 = 4,096 codes, no codebook to collapse.
    "tiny": TiTokConfig(
        image_size=(256, 256),
        patch_size=(1, 16, 16),
        num_queries=128,
        encoder=_vit(256, 4),
        decoder=_vit(256, 5),
        quantizer=FSQConfig(levels=(8, 8, 8, 8)),
        nested_dropout=True,
    ),
    # The paper's three (arXiv 2406.07550, section 4).
    "s-128": _paper(512, 8, 128),
    "b-64": _paper(768, 12, 64),
    "l-32": _paper(1024, 24, 32),
    # simple-1d-tokenizer: the figures of its README, which its own code cannot express.
    "grid-16": TiTokConfig(
        image_size=(256, 256),
        patch_size=(1, 64, 64),
        num_queries=None,
        encoder=_vit(1024, 12),
        decoder=_vit(1024, 12),
        quantizer=VQConfig(codebook_size=8192, codebook_dim=1024),
    ),
    # simple-1d-tokenizer: the configuration that it trains, with the cosine look-up that it asks for.
    "small-128": TiTokConfig(
        image_size=(256, 256),
        patch_size=(1, 16, 16),
        num_queries=128,
        encoder=_vit(512, 4),
        decoder=_vit(512, 4),
        quantizer=VQConfig(codebook_size=512, codebook_dim=32, l2_norm=True),
    ),
    # simple-1d-tokenizer: its stack "base" and the 8,192 codes of its README.
    "base-32": TiTokConfig(
        image_size=(256, 256),
        patch_size=(1, 16, 16),
        num_queries=32,
        encoder=_vit(768, 12),
        decoder=_vit(768, 12),
        quantizer=VQConfig(codebook_size=8192, codebook_dim=32, l2_norm=True),
    ),
}
