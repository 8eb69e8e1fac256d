"""What TiTok-Video packs: pieces of clips with their tokens, their positions, and the two networks over them.

Letters: C channels (3), T H W pixels, P values of a patch, N packed patches, Q packed tokens, M packed rows of both,
D dim, E codebook_dim, f rotary bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.nn.attention import Bounds, attend
from tokenreel.nn.blocks import Block, Transformer, TransformerConfig
from tokenreel.nn.initial import drawn
from tokenreel.nn.rotary import Rotary, Rotation, grid_positions
from tokenreel.types import PatchSize

__all__ = [
    "Analysis",
    "Piece",
    "Synthesis",
    "alike",
    "in_order",
    "in_passes",
    "patches_of",
    "rotation_of",
    "run",
    "videos_of",
]

_START = 0.02
_KEPT_ROWS = 4_096  # of a piece whose table of rotations is kept: 1 MiB at most
"""Standard deviation of vectors that are the same for all clips: small, so that what is attended counts at once."""


class Piece(NamedTuple):
    """One segment of a clip in a pack: its grid, and how many tokens stand for it.

    >>> Piece(2, 3, 4, 5).num_rows
    29
    """

    t: int
    h: int
    w: int
    token_count: int

    @property
    def num_patches(self) -> int:
        """t * h * w."""
        return self.t * self.h * self.w

    @property
    def num_rows(self) -> int:
        """Rows in the pack: patches, then tokens."""
        return self.num_patches + self.token_count


def in_passes(pieces: Sequence[Piece], budget: int) -> Iterator[list[int]]:
    """Indices of pieces that run together: at most ``budget`` rows (or one piece), equal ones side by side.

    >>> small, large = Piece(1, 1, 1, 1), Piece(1, 2, 2, 1)
    >>> list(in_passes([large, small, large, small], 7))
    [[1, 3], [0], [2]]
    """
    chosen: list[int] = []
    rows = 0
    for index in sorted(range(len(pieces)), key=lambda index: (pieces[index].num_rows, pieces[index])):
        if chosen and rows + pieces[index].num_rows > budget:
            yield chosen
            chosen, rows = [], 0
        chosen.append(index)
        rows += pieces[index].num_rows
    if chosen:
        yield chosen


def in_order(values_N: Tensor, lengths: Sequence[int], order: Sequence[int]) -> Tensor:
    """Parts of these lengths end to end -> the same parts in another order.

    >>> in_order(torch.arange(5), [2, 3], [1, 0])
    tensor([2, 3, 4, 0, 1])
    """
    if list(order) == list(range(len(lengths))):
        return values_N
    parts = torch.split(values_N, list(lengths))
    return torch.cat([parts[index] for index in order])


def alike(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, list[int]]]:
    """Each kind of piece, and where it stands.

    >>> list(alike([Piece(1, 1, 1, 1), Piece(1, 2, 2, 1), Piece(1, 1, 1, 1)]))[0]
    (Piece(t=1, h=1, w=1, token_count=1), [0, 2])
    """
    found: dict[Piece, list[int]] = {}
    for index, piece in enumerate(pieces):
        found.setdefault(piece, []).append(index)
    yield from found.items()


def patches_of(segments: Sequence[Tensor], patch_size: PatchSize) -> Tensor:
    """(C, T, H, W) each -> (N, P), the patches of all end to end; what does not divide repeats its edge."""
    pt, ph, pw = patch_size
    rows = []
    for segment_CTHW in segments:
        frames, height, width = segment_CTHW.shape[1:]
        pads = (0, -width % pw, 0, -height % ph, 0, -frames % pt)
        padded = F.pad(segment_CTHW[None], pads, mode="replicate")[0] if any(pads) else segment_CTHW
        rows.append(rearrange(padded, "C (t pt) (h ph) (w pw) -> (t h w) (pt ph pw C)", pt=pt, ph=ph, pw=pw))
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def videos_of(patches_NP: Tensor, pieces: Sequence[Piece], patch_size: PatchSize) -> list[Tensor]:
    """Inverse of ``patches_of``, padding included."""
    pt, ph, pw = patch_size
    return [
        rearrange(
            rows,
            "(t h w) (pt ph pw C) -> C (t pt) (h ph) (w pw)",
            t=piece.t, h=piece.h, w=piece.w, pt=pt, ph=ph, pw=pw,
        )
        for piece, rows in zip(pieces, torch.split(patches_NP, [piece.num_patches for piece in pieces]))
    ]  # fmt: skip


def rotation_of(
    pieces: Sequence[Piece], *, head_dim: int, max_extents: tuple[int, ...], device: torch.device
) -> Rotation:
    """(M, f): M-RoPE of all rows over (token, t, h, w). Patches have token 0, tokens count from 1 at grid (0, 0, 0).

    Qwen2-VL, arXiv 2409.12191, section 2.1, with an axis more. Tables of recent shapes are kept.
    """
    # Tables of large pieces are made anew: they are dear to keep and cheap beside their attention.
    is_small = all(piece.num_rows <= _KEPT_ROWS for piece in pieces)
    table = _kept_table if is_small and not torch.compiler.is_compiling() else _table
    tables = [table(piece, head_dim, max_extents, device) for piece in pieces]
    if len(tables) == 1:
        return tables[0]
    return Rotation(*(torch.cat(part) for part in zip(*tables)))


def _table(piece: Piece, head_dim: int, max_extents: tuple[int, ...], device: torch.device) -> Rotation:
    grid_N3 = grid_positions(piece.t, piece.h, piece.w, device=device)
    count_Q1 = torch.arange(1, piece.token_count + 1, device=device)[:, None]
    positions_M4 = torch.cat([F.pad(grid_N3, (1, 0)), F.pad(count_Q1, (0, 3))])
    rotation: Rotation = Rotary(head_dim=head_dim, max_extents=max_extents)(positions_M4)
    return rotation


@lru_cache(maxsize=32)
def _kept_table(piece: Piece, head_dim: int, max_extents: tuple[int, ...], device: torch.device) -> Rotation:
    with torch.inference_mode(False), torch.no_grad():  # a table made in encode must serve training too
        return _table(piece, head_dim, max_extents, device)


def run(
    stack: Transformer,
    x_MD: Tensor,
    wanted: Callable[[Tensor], Tensor],
    *,
    rotary: Rotation,
    cu_seqlens: Bounds | None = None,
    cu_wanted: Bounds | None = None,
    valid_mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The stack's output at some rows alone: in the last block only they ask, and only they pass the MLP.

    Args:
        stack: blocks over all rows.
        x_MD: what it reads, packed, or a padded batch (B, L, D).
        wanted: takes the rows out of all.
        rotary: of all rows.
        cu_seqlens: bounds of the pieces in all rows.
        cu_wanted: bounds of the pieces in the wanted rows.
        valid_mask: of a padded batch.
        generator: draws dropped branches in training; these are drawn for all rows, so nothing is left out then.
    """
    if stack.training and stack.config.drop_path > 0:
        return wanted(stack(x_MD, rotary=rotary, cu_seqlens=cu_seqlens, valid_mask=valid_mask, generator=generator))
    *blocks, last = stack.blocks
    assert isinstance(last, Block)
    for block in blocks:
        x_MD = block(x_MD, rotary=rotary, cu_seqlens=cu_seqlens, valid_mask=valid_mask)
    attention = last.attention
    q, seen, gate = attention._split(last.attention_branch.before(x_MD), rotary)
    values = attend(wanted(q), *seen, valid_mask=valid_mask, cu_seqlens=cu_wanted, cu_seqlens_k=cu_seqlens)
    x_QD = last.attention_branch.after(wanted(x_MD), attention._merge(values, wanted(gate)), None)
    normed: Tensor = stack.norm(last.mlp_branch.after(x_QD, last.mlp(last.mlp_branch.before(x_QD)), None))
    return normed


class PackedStack(nn.Module):
    """A transformer over packs of [patches | tokens | patches | tokens ...]; no piece sees another.

    A linear map of the cosines and sines of a row's position is added to what it holds. Rotation alone tells only
    differences between rows that hold the same vector, and attention over equal values is blind to it.
    """

    def __init__(self, config: TransformerConfig, max_extents: tuple[int, ...]) -> None:
        super().__init__()
        self.max_extents = max_extents
        self.transformer = Transformer(config)
        self.place = nn.Linear(config.head_dim, config.dim, bias=False)
        drawn(self.place.weight, std=_START)

    def forward(
        self,
        patches_ND: Tensor,
        tokens_QD: Tensor,
        pieces: Sequence[Piece],
        *,
        tokens: bool,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Rows of the patches and of the tokens, end to end -> what became of the tokens, or else of the patches."""
        sizes = [size for piece in pieces for size in (piece.num_patches, piece.token_count)]
        parts = zip(torch.split(patches_ND, sizes[::2]), torch.split(tokens_QD, sizes[1::2]))
        first = 1 if tokens else 0
        rotation = rotation_of(
            pieces,
            head_dim=self.transformer.config.head_dim,
            max_extents=self.max_extents,
            device=patches_ND.device,
        )

        def wanted(x_MD: Tensor) -> Tensor:
            rows = torch.split(x_MD, sizes)[first::2]
            return rows[0] if len(rows) == 1 else torch.cat(rows)

        return run(
            self.transformer,
            torch.cat([part for pair in parts for part in pair]) + self.place(torch.cat(rotation, dim=-1)),
            wanted,
            rotary=rotation,
            cu_seqlens=tuple(accumulate((piece.num_rows for piece in pieces), initial=0)),
            cu_wanted=tuple(accumulate(sizes[first::2], initial=0)),
            generator=generator,
        )


class Analysis(nn.Module):
    """Patches -> latents: (N, P) and pieces -> (Q, E), float32.

    All queries are one learned vector, told apart by their positions: their number is free.
    """

    def __init__(
        self, config: TransformerConfig, max_extents: tuple[int, ...], patch_values: int, codebook_dim: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(patch_values, config.dim)
        self.query_D = nn.Parameter(drawn(torch.empty(config.dim), std=_START))
        self.stack = PackedStack(config, max_extents)
        self.project = nn.Linear(config.dim, codebook_dim)

    def forward(self, patches_NP: Tensor, pieces: Sequence[Piece], generator: torch.Generator | None = None) -> Tensor:
        """(N, P) -> (Q, E)."""
        queries_QD = self.query_D.expand(sum(piece.token_count for piece in pieces), -1)
        x_QD = self.stack(self.embed(patches_NP), queries_QD, pieces, tokens=True, generator=generator)
        with torch.autocast(x_QD.device.type, enabled=False):  # ids are decided here
            latents_QE: Tensor = self.project(x_QD.float())
        return latents_QE


class Synthesis(nn.Module):
    """Codes -> patches: (Q, E) and pieces -> (N, P). Every patch starts as one learned vector at its position."""

    def __init__(
        self, config: TransformerConfig, max_extents: tuple[int, ...], patch_values: int, codebook_dim: int
    ) -> None:
        super().__init__()
        self.project = nn.Linear(codebook_dim, config.dim)
        self.mask_D = nn.Parameter(drawn(torch.empty(config.dim), std=_START))
        self.stack = PackedStack(config, max_extents)
        self.head = nn.Linear(config.dim, patch_values)

    def features(
        self,
        codes_QE: Tensor,
        pieces: Sequence[Piece],
        generator: torch.Generator | None = None,
        *,
        start_ND: Tensor | None = None,
    ) -> Tensor:
        """(Q, E) -> (N, D), which ``head`` makes patches of; ``start_ND`` is added to what every patch starts as."""
        masks_ND = self.mask_D.expand(sum(piece.num_patches for piece in pieces), -1)
        masks_ND = masks_ND if start_ND is None else masks_ND + start_ND.to(masks_ND.dtype)
        x_ND: Tensor = self.stack(masks_ND, self.project(codes_QE), pieces, tokens=False, generator=generator)
        return x_ND
