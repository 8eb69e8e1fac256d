"""Configurations of the masked transformer and of what its critics share with it, and their named sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, get_args

from tokenreel.errors import InputError
from tokenreel.nn.blocks import TransformerConfig
from tokenreel.tokenizers.base import Tokenizer
from tokenreel.tokenizers.configs import BlockOptions, Stack

from .text import ByteTextConfig
from .vocabulary import Vocabulary

__all__ = ["SIZES", "MaskGITConfig", "Positions", "TokenNetworkConfig", "tied"]

Positions = Literal["rotary", "bias"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenNetworkConfig:
    """Configuration of a bidirectional transformer over ids on a grid.

    Attributes:
        vocabulary: of the ids.
        stack: size of the transformer.
        extents: the grid (t, h, w) that positions are spaced for; other grids are taken too. 1-D tokens lie on
            (1, 1, L), an axis of extent 1 takes no share of the positions.
        context_dim: width of the text states that are attended, or None for a model that reads no text.
        num_classes: labels lie in [0, num_classes); None for no labels.
        positions: ``rotary`` over (t, h, w), or ``bias``, a continuous bias on the scores.
        null_probability: share of examples that are trained without their condition, for guidance
            (arXiv 2207.12598, algorithm 1).
        blocks: how the blocks are built.
        group: tokens (t, h, w) that lie beside each other and are one position of the transformer, which so has fewer
            of them; (1, 1, 1): every token is one.
        token_dim: width of a token's embedding and of its features, which the output layer reads; None: that of the
            stack.
        local_dim: width of a network behind the transformer that reads every token's own embedding and those around it,
            which a position of many tokens cannot keep; None: no such network.
        local_depth: its hidden layers.
        local_windows: rows and columns, both odd, that it reads around a token in its own step, in the one before, ...
    """

    vocabulary: Vocabulary
    stack: Stack
    extents: tuple[int, int, int]
    context_dim: int | None = None
    num_classes: int | None = None
    positions: Positions = "rotary"
    null_probability: float = 0.1
    blocks: BlockOptions = field(default_factory=BlockOptions)
    group: tuple[int, int, int] = (1, 1, 1)
    token_dim: int | None = None
    local_dim: int | None = None
    local_depth: int = 1
    local_windows: tuple[tuple[int, int], ...] = ((3, 3), (3, 3))

    def __post_init__(self) -> None:
        for name in ("extents", "group"):
            sides = tuple(getattr(self, name))
            object.__setattr__(self, name, sides)
            if len(sides) != 3 or any(type(side) is not int or side < 1 for side in sides):
                raise InputError(f"{name} must be (t, h, w), whole numbers of at least 1, got {sides}")
        for name in ("token_dim", "local_dim", "num_classes"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise InputError(f"{name} must be a whole number of at least 1 or None, got {value!r}")
        if type(self.local_depth) is not int or self.local_depth < 1:
            raise InputError(f"local_depth must be a whole number of at least 1, got {self.local_depth!r}")
        object.__setattr__(self, "local_windows", tuple(tuple(window) for window in self.local_windows))
        lengths = [side for window in self.local_windows for side in window]
        is_odd = all(type(side) is int and side > 0 and side % 2 for side in lengths)
        if not is_odd or not lengths or any(len(window) != 2 for window in self.local_windows):
            raise InputError(
                f"local_windows must be odd numbers of rows and columns, a pair a step, got {self.local_windows}"
            )
        if self.positions not in get_args(Positions):
            raise InputError(f"positions must be one of {', '.join(get_args(Positions))}, got {self.positions!r}")
        if not 0 <= self.null_probability < 1:
            raise InputError(f"null_probability must lie in [0, 1), got {self.null_probability}")
        if self.stack.head_dim % 2:
            raise InputError(f"positions need an even head_dim, got {self.stack.head_dim}")
        self.transformer()

    @property
    def is_conditional(self) -> bool:
        """Whether it is told anything, text or a label."""
        return self.context_dim is not None or self.num_classes is not None

    @property
    def is_grouped(self) -> bool:
        """Whether a position of the transformer is something else than a token."""
        return self.group != (1, 1, 1) or self.token_dim is not None or self.local_dim is not None

    @property
    def feature_dim(self) -> int:
        """E: width of the features of a token."""
        return self.stack.dim if self.token_dim is None else self.token_dim

    def transformer(self) -> TransformerConfig:
        """The full configuration of the stack."""
        return replace(self.stack.transformer(self.blocks), context_dim=self.context_dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskGITConfig(TokenNetworkConfig):
    """Configuration of ``MaskGIT``; fields as in ``TokenNetworkConfig``, and these.

    Attributes:
        text: the byte-level text encoder inside it, of width ``context_dim``; None where text states come from outside.
        text_encoder: name of the outside encoder it is trained with, or "".
        text_fingerprint: of that encoder, or "".
        self_critic: whether a head scores the tokens of its own features.
        chained: the digits of an id are guessed one after the other, each told those before it, instead of
            independently: p(d_1, d_2 | y) = p(d_1 | y) p(d_2 | y, d_1). Of one level it changes nothing.
    """

    text: ByteTextConfig | None = None
    text_encoder: str = ""
    text_fingerprint: str = ""
    self_critic: bool = False
    chained: bool = False

    def __post_init__(self) -> None:
        TokenNetworkConfig.__post_init__(self)
        if self.text is not None and self.text.stack.dim != self.context_dim:
            raise InputError(
                f"text.stack.dim ({self.text.stack.dim}) must be context_dim ({self.context_dim}), the width it gives"
            )
        if self.text is not None and self.text_encoder:
            raise InputError(f"a model with text inside takes no text_encoder, got {self.text_encoder!r}; choose one")


C = TypeVar("C", bound=TokenNetworkConfig)


def tied(config: C, tokenizer: Tokenizer, *, levels: Sequence[int] | None = None) -> C:
    """The configuration with the vocabulary of a tokenizer, factorised by ``levels`` if given."""
    return replace(config, vocabulary=Vocabulary.of(tokenizer, levels=levels))


def _free(codebook_size: int) -> Vocabulary:
    """Tied to no tokenizer, one softmax."""
    return Vocabulary(codebook_size=codebook_size, levels=(codebook_size,))


_MODERN = BlockOptions(mlp="swiglu", norm="rms", qk_norm=True, bias=False)

SIZES: dict[str, MaskGITConfig] = {
    # For a CPU: 64x64 video of at most 4,096 codes, captions read as bytes.
    "tiny": MaskGITConfig(
        vocabulary=_free(4096),
        stack=Stack(dim=256, depth=6, num_heads=4, head_dim=64, mlp_dim=704),
        extents=(8, 16, 16),
        context_dim=128,
        text=ByteTextConfig(stack=Stack(dim=128, depth=2, num_heads=2, head_dim=64, mlp_dim=352)),
        blocks=_MODERN,
    ),
    # phenaki-pytorch's README: T5-base states, 65,536 codes. Its MLP is 1,365 wide; ours is a multiple of 16 and takes
    # what its table of positions and its convolutions have: 94.6 M parameters there and here.
    "phenaki": MaskGITConfig(
        vocabulary=_free(65536),
        stack=Stack(dim=512, depth=6, num_heads=8, head_dim=64, mlp_dim=1424),
        extents=(9, 8, 8),
        context_dim=768,
        blocks=BlockOptions(mlp="geglu"),
    ),
    # MaskGIT, arXiv 2202.04200, section 4.1: ImageNet 256x256 by labels.
    "imagenet": MaskGITConfig(
        vocabulary=_free(1024),
        stack=Stack(dim=768, depth=24, num_heads=8, head_dim=96, mlp_dim=3072),
        extents=(1, 16, 16),
        num_classes=1000,
    ),
}
