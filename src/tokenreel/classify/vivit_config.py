"""Configuration of ViViT, of what it shares with its sibling on ids, and its named sizes with their sources."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from tokenreel.errors import InputError
from tokenreel.tokenizers.configs import BlockOptions, Stack
from tokenreel.types import Grid, PatchSize, check_patch_size

from .logits import HeadLabels
from .stem import SHRINK as STEM_SHRINK

__all__ = ["SIZES", "Activation", "EncoderConfig", "Fit", "Model", "Pooling", "ViViTConfig"]

Model = Literal["spatio_temporal", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"]
Pooling = Literal["class_token", "mean"]
Activation = Literal["gelu", "gelu_tanh"]
Edges = Literal["pad", "drop"]
Fit = Literal["crop", "stretch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """What classifiers of pixels and of ids share: one of the four models, its size and its heads.

    Attributes:
        model: models 1 to 4 of arXiv 2103.15691, section 3.3: ``spatio_temporal``, ``factorised_encoder``,
            ``factorised_self_attention``, ``factorised_dot_product``.
        encoder: size of the transformer; with ``factorised_encoder`` of the one over space.
        temporal_depth: with ``factorised_encoder`` blocks of the transformer over time; 0 averages the frames (the
            paper's "average pooling baseline"). None with the others.
        temporal_pooling: with ``factorised_encoder`` how steps become one vector; None as ``pooling``.
        pooling: ``class_token``, or ``mean`` over what is not padding. ``factorised_self_attention`` and
            ``factorised_dot_product`` fold tokens along space and time, where a class token has no place: ``mean``.
        heads: (name, labels) of each attribute; class i is label i.
        blocks: how blocks are built, with ``drop_path``.
        activation: of ``gelu`` MLPs: exact, or ``gelu_tanh``, the approximation that some checkpoints were made with.
        eps: of the norms.
    """

    model: Model
    encoder: Stack
    pooling: Pooling
    heads: HeadLabels
    temporal_depth: int | None = None
    temporal_pooling: Pooling | None = None
    blocks: BlockOptions = field(default_factory=BlockOptions)
    activation: Activation = "gelu"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", _checked_heads(self.heads))
        for name, choices in (("model", Model), ("pooling", Pooling), ("activation", Activation)):
            if getattr(self, name) not in get_args(choices):
                raise InputError(f"{name} must be one of {', '.join(get_args(choices))}, got {getattr(self, name)!r}")
        whole = type(self.temporal_depth) is int and 0 <= self.temporal_depth <= 1_000
        if self.model == "factorised_encoder" and not whole:
            raise InputError(f"factorised_encoder needs temporal_depth, 0 or more blocks, got {self.temporal_depth!r}")
        if self.model != "factorised_encoder" and self.temporal_depth is not None:
            raise InputError(f"temporal_depth ({self.temporal_depth}) is for factorised_encoder, not for {self.model}")
        if self.temporal_pooling is not None and (
            self.model != "factorised_encoder" or self.temporal_pooling not in get_args(Pooling)
        ):
            raise InputError(
                f"temporal_pooling must be None, or one of {', '.join(get_args(Pooling))} with factorised_encoder, "
                f"got {self.temporal_pooling!r} with {self.model}"
            )
        folded = self.model in ("factorised_self_attention", "factorised_dot_product")
        if folded and self.pooling != "mean":
            raise InputError(f"{self.model} has no class token (a fold of tokens has no place for it); pooling='mean'")
        if self.model == "factorised_dot_product" and (
            self.encoder.num_heads % 2 or (self.blocks.num_kv_heads or 2) % 2
        ):
            raise InputError(
                "factorised_dot_product gives half of the heads to space, half to time: num_heads and num_kv_heads "
                f"must be even, got {self.encoder.num_heads} and {self.blocks.num_kv_heads}"
            )
        if self.activation != "gelu" and self.blocks.mlp != "gelu":
            raise InputError(f"activation {self.activation!r} is for MLPs of kind gelu, not {self.blocks.mlp}")
        if not (isinstance(self.eps, float) and 0 < self.eps < 1):
            raise InputError(f"eps must lie in (0, 1), got {self.eps!r}")
        self.encoder.transformer(self.blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViViTConfig(EncoderConfig):
    """Configuration of ``ViViT``.

    Attributes:
        num_frames: frames that are sampled uniformly of a video, and that the positions are made for.
        size: (H, W) that the positions are made for.
        in_channels: 1 (grey) or 3 (RGB).
        patch_size: (pt, ph, pw), the tubelet.
        edges: what does not divide into patches is padded with zeros and read (``pad``), or thrown away (``drop``,
            what a convolution without padding does).
        stem_channels: F of two convolutions that shrink each frame fourfold before it is cut into tubelets, see
            ``ConvStem``; None: tubelets of pixels, as in the paper.
        fit: how frames of another size come to ``size``, in training and after: ``crop`` keeps the aspect and cuts the
            middle out, ``stretch`` keeps all.
    """

    num_frames: int
    size: tuple[int, int]
    in_channels: int
    patch_size: PatchSize
    edges: Edges = "pad"
    stem_channels: int | None = None
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        object.__setattr__(self, "patch_size", check_patch_size(self.patch_size))
        object.__setattr__(self, "size", tuple(self.size))
        sides = (self.num_frames, *self.size)
        if len(sides) != 3 or any(type(side) is not int or side < 1 for side in sides):
            raise InputError(
                f"num_frames and size (H, W) must be whole, at least 1, got {self.num_frames}, {self.size}"
            )
        if self.in_channels not in (1, 3):
            raise InputError(f"in_channels must be 1 (grey) or 3 (RGB), got {self.in_channels!r}")
        for name, choices in (("edges", Edges), ("fit", Fit)):
            if getattr(self, name) not in get_args(choices):
                raise InputError(f"{name} must be one of {', '.join(get_args(choices))}, got {getattr(self, name)!r}")
        if self.stem_channels is not None and (
            type(self.stem_channels) is not int
            or self.stem_channels < 1
            or self.patch_size[1] % STEM_SHRINK
            or self.patch_size[2] % STEM_SHRINK
        ):
            raise InputError(
                f"stem_channels must be at least 1, and height and width of a patch then divide by {STEM_SHRINK}, "
                f"got {self.stem_channels} and {self.patch_size}"
            )
        self.grid_of(sides)

    @property
    def grid(self) -> Grid:
        """That the positions are made for."""
        return self.grid_of((self.num_frames, *self.size))

    def grid_of(self, size: tuple[int, int, int]) -> Grid:
        """Of a video of (T, H, W); InputError where ``edges='drop'`` leaves no patch of it."""
        if self.edges == "pad":
            return Grid.of(*size, self.patch_size)
        if any(side < patch for side, patch in zip(size, self.patch_size)):
            raise InputError(f"a video of {size} (T, H, W) holds no patch {self.patch_size}; edges='pad' would pad it")
        t, h, w = (side // patch for side, patch in zip(size, self.patch_size))
        return Grid(t=t, h=h, w=w)


def _checked_heads(heads: Any) -> HeadLabels:
    """As nested tuples (JSON has lists), each with a name of its own and at least two different labels."""
    try:
        checked = tuple((name, tuple(labels)) for name, labels in heads)
    except (TypeError, ValueError):
        raise InputError(f"heads must be pairs of a name and its labels, got {heads!r}") from None
    names = [name for name, _ in checked]
    if not names or len(set(names)) != len(names) or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"heads must be one or more, each with a name of its own, got {names}")
    for name, labels in checked:
        if len(labels) < 2 or len(set(labels)) != len(labels) or not all(isinstance(label, str) for label in labels):
            raise InputError(f"head {name!r} must have two or more different labels, got {list(labels)[:6]}")
    return checked


def _vit(dim: int, depth: int, *, head_dim: int = 64) -> Stack:
    """An MLP of 4 D, as ViT has it (arXiv 2010.11929, table 1)."""
    return Stack(dim=dim, depth=depth, num_heads=dim // head_dim, head_dim=head_dim, mlp_dim=4 * dim)


def numbered(count: int) -> tuple[str, ...]:
    """Labels that say nothing: ``0``, ``1``, ..."""
    return tuple(str(index) for index in range(count))


_ORGANS = (
    "liver",
    "kidney-right",
    "kidney-left",
    "femur-right",
    "femur-left",
    "bladder",
    "heart",
    "lung-right",
    "lung-left",
    "spleen",
    "pancreas",
)

_KERAS = ViViTConfig(
    model="spatio_temporal",
    num_frames=28,
    size=(28, 28),
    in_channels=1,
    patch_size=(8, 8, 8),
    encoder=_vit(128, 8, head_dim=16),
    pooling="mean",
    heads=(("label", _ORGANS),),
)

_PAPER = ViViTConfig(
    model="spatio_temporal",
    num_frames=32,
    size=(224, 224),
    in_channels=3,
    patch_size=(2, 16, 16),
    encoder=_vit(768, 12),
    pooling="class_token",
    heads=(("label", numbered(400)),),
)

_LARGE = replace(_PAPER, encoder=_vit(1024, 24))

_VOLUME = replace(_KERAS, patch_size=(4, 4, 4), encoder=_vit(192, 6, head_dim=32), blocks=BlockOptions(drop_path=0.1))

SIZES: dict[str, ViViTConfig] = {
    # Small enough to train on a CPU: 8x8x8 tubelets, 1.3 M parameters.
    "tiny": ViViTConfig(
        model="factorised_encoder",
        num_frames=16,
        size=(64, 64),
        in_channels=3,
        patch_size=(2, 8, 8),
        encoder=_vit(128, 4, head_dim=32),
        temporal_depth=2,
        pooling="class_token",
        heads=(("label", numbered(10)),),
    ),
    # The Keras example on OrganMNIST3D: its stack and head, 64 padded tubelets and not 27 that fit.
    "keras-example": _KERAS,
    "keras-example-valid": replace(_KERAS, edges="drop"),
    # MedMNIST 2-D (a video of one frame) and 3-D, at 28 and at 64.
    "image-28": replace(_VOLUME, num_frames=1, patch_size=(1, 4, 4), heads=(("label", ("normal", "pneumonia")),)),
    "volume-28": _VOLUME,
    "volume-64": replace(_VOLUME, num_frames=64, size=(64, 64), patch_size=(8, 8, 8)),
    # The paper's models 1 to 4 at B/16x2 (arXiv 2103.15691, table 2), and model 1 and 2 at L/16x2.
    "b-16x2": _PAPER,
    "b-16x2-fe": replace(_PAPER, model="factorised_encoder", temporal_depth=4),
    "b-16x2-fsa": replace(_PAPER, model="factorised_self_attention", pooling="mean"),
    "b-16x2-fdp": replace(_PAPER, model="factorised_dot_product", pooling="mean"),
    "l-16x2": _LARGE,
    "l-16x2-fe": replace(_LARGE, model="factorised_encoder", temporal_depth=4),
}
