"""A trained byte-pair vocabulary as a frozen value: it encodes, decodes, and is kept as JSON (rules: see ``bpe``).

Letters: t h w grid, L ids, M merges, V vocab_size, A axes.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from tokenreel.errors import FormatError, InputError
from tokenreel.types import Grid, smallest_unsigned

from . import bpe_file
from .bpe_layout import MOST_CELLS, as_ids, cell_dtype, flagged, join, lay_out

if TYPE_CHECKING:
    from .bpe_decode import Expansions
    from .bpe_encode import Rules

__all__ = ["MOST_BASE_IDS", "Axes", "Merges"]

Axes = Literal["flat", "grid"]
"""``flat``: ids in a row. ``grid``: ids in a (t, h, w) grid, merged along its axes."""

Ids = npt.NDArray[np.unsignedinteger[Any]]

MOST_BASE_IDS = 1 << 20
_GROUP = 1 << 22
_ROW_AXIS = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Merges:
    """A byte-pair vocabulary: base ids in [0, base_size), then one id a merge.

    >>> from tokenreel.tokens.bpe import train
    >>> merges = train(b"aaabdaaabac", vocab_size=259)
    >>> merges.encode(b"aaabdaaabac").tolist()
    [258, 100, 258, 97, 99]
    >>> merges.decode([258, 100]).tobytes(), merges
    (b'aaabd', Merges(3 flat merges over 256 base ids, longest 4))

    Attributes:
        pairs: uint32 (M, 2), the left and right id of each merge, by rank; merge r makes id ``base_size + r``.
        base_size: how many ids there were before any merge.
        axes: ``flat`` or ``grid``.
        axis: uint8 (M,), along which each merge goes (0 = t, 1 = h, 2 = w); None if flat.
        counts: uint32 (M,), how often each pair stood when training merged it; None if not known.
        meta: free JSON values; ``train`` writes ``stopped``, ``num_ids``, ``num_sequences`` and ``boundaries``.
    """

    pairs: npt.NDArray[np.uint32]
    base_size: int
    axes: Axes = "flat"
    axis: npt.NDArray[np.uint8] | None = None
    counts: npt.NDArray[np.uint32] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    extents_VA: npt.NDArray[np.int64] = field(init=False, repr=False)
    _made: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.axes not in get_args(Axes):
            raise InputError(f"Merges.axes must be one of {', '.join(get_args(Axes))}, got {self.axes!r}")
        if not 1 <= self.base_size <= MOST_BASE_IDS:
            raise InputError(f"Merges.base_size must lie between 1 and {MOST_BASE_IDS:,}, got {self.base_size}")
        num = len(self.pairs)
        if self.pairs.dtype != np.uint32 or self.pairs.shape != (num, 2):
            raise InputError(f"Merges.pairs must be uint32 (M, 2), got {self.pairs.dtype} {self.pairs.shape}")
        for name, values, dtype in (("axis", self.axis, np.uint8), ("counts", self.counts, np.uint32)):
            if values is not None and (values.dtype != dtype or values.shape != (num,)):
                raise InputError(f"Merges.{name} must be {np.dtype(dtype)} ({num},), got {values.dtype} {values.shape}")
        if (self.axis is None) != (self.axes == "flat"):
            raise InputError(f"Merges.axis must be given for grids and only there; axes is {self.axes!r}")
        too_late = np.flatnonzero(self.pairs.max(axis=1, initial=0) >= self.base_size + np.arange(num))
        if too_late.size:
            r = int(too_late[0])
            raise InputError(
                f"merge {r} joins ids {self.pairs[r].tolist()}, but only {self.base_size + r} are known there"
            )
        columns = self._columns()
        if len(np.unique(columns, axis=0)) < num:
            raise InputError("Merges.pairs holds a pair twice, the second of which could never be merged")
        object.__setattr__(self, "extents_VA", _extents(self._axis_M, self.pairs, self.base_size))

    @property
    def _axis_M(self) -> npt.NDArray[np.uint8]:
        return np.full(len(self.pairs), _ROW_AXIS, np.uint8) if self.axis is None else self.axis

    @property
    def num_merges(self) -> int:
        """M."""
        return len(self.pairs)

    @property
    def vocab_size(self) -> int:
        """V, base_size + M."""
        return self.base_size + len(self.pairs)

    @property
    def interrupted(self) -> bool:
        """Whether training was broken off; such merges are sound, there are only fewer."""
        return self.meta.get("stopped") == "interrupted"

    @property
    def fingerprint(self) -> str:
        """A hash of all that encoding depends on."""
        return hashlib.sha256(f"{self.axes} {self.base_size} ".encode() + self._sha256().encode()).hexdigest()

    def extent(self, bpe_id: int) -> tuple[int, int, int]:
        """How many cells (t, h, w) an id stands for; (1, 1, n) if flat."""
        self._check_id(bpe_id)
        t, h, w = self.extents_VA[bpe_id].tolist()
        return t, h, w

    def expansion(self, bpe_id: int) -> Ids:
        """The base ids that an id stands for: (n,), or a block (t, h, w) of a grid."""
        extent = self.extent(bpe_id)
        return self.decode(np.array([bpe_id]), grid=extent if self.axes == "grid" else None)

    def encode(self, ids: Any) -> Ids:
        """Merged ids of one sequence (L,) or grid (t, h, w) of base ids, in the smallest unsigned dtype.

        Raises:
            InputError: not whole numbers in [0, base_size), or of another number of axes.
        """
        return self.encode_many([ids])[0]

    def encode_many(self, sequences: Sequence[Any]) -> list[Ids]:
        """Merged ids of each of many sequences or grids; faster than one by one if they are short."""
        parts = [self._base_ids(part) for part in sequences]
        dtype = smallest_unsigned(self.vocab_size)
        encode = self._encode_flat if self.axes == "flat" else self._encode_grids
        encoded: list[Ids] = []
        for group in _groups(parts):
            encoded += [part.astype(dtype, copy=False) for part in encode(group)]
        return encoded

    def decode(self, bpe_ids: Any, *, grid: Grid | tuple[int, int, int] | None = None) -> Ids:
        """The base ids that were encoded: (L,), or (t, h, w) for merges of a grid, whose size must be given.

        Raises:
            InputError: ids outside [0, vocab_size), or blocks that do not fill the grid.
        """
        ids = as_ids(bpe_ids, what="bpe_ids")
        if ids.ndim != 1:
            raise InputError(f"bpe_ids must be 1-D, got shape {ids.shape}")
        if ids.size and int(ids.max()) >= self.vocab_size:
            raise InputError(
                f"bpe_ids must lie in [0, {self.vocab_size}), found {int(ids.max())}; are they of other merges?"
            )
        if (grid is None) != (self.axes == "flat"):
            raise InputError(
                "give decode the grid (t, h, w) that was encoded"
                if grid is None
                else "flat merges know no grid; leave it out"
            )
        ids = ids.astype(cell_dtype(self.vocab_size), copy=False)
        return self._decode_flat(ids) if grid is None else self._decode_grid(ids, grid)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the merges as JSON (see ``bpe_file``), whole or not at all."""
        merges, counts = self._columns().tolist(), None if self.counts is None else self.counts.tolist()
        content = {
            "format": bpe_file.FORMAT,
            "version": bpe_file.VERSION,
            "axes": self.axes,
            "base_size": self.base_size,
            "vocab_size": self.vocab_size,
            "merges": merges,
            "counts": counts,
            "meta": dict(self.meta),
            "sha256": bpe_file.digest(merges, counts),
        }
        bpe_file.write_json(path, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read merges written by ``save``.

        Raises:
            InputError: the file cannot be read.
            FormatError: it is foreign, damaged, or of a newer version.
        """
        content = bpe_file.read_json(path)
        flat = content["axes"] == "flat"
        try:
            table = _whole_numbers(content["merges"]).reshape(len(content["merges"]), 2 if flat else 3)
            counts = None if content.get("counts") is None else _whole_numbers(content["counts"])
            return cls(
                pairs=np.ascontiguousarray(table[:, :2]),
                base_size=content["base_size"],
                axes=content["axes"],
                axis=None if flat else table[:, 2].astype(np.uint8),
                counts=counts,
                meta=content["meta"],
            )
        except (ValueError, TypeError, OverflowError) as error:  # InputError is a ValueError
            raise FormatError(f"{path} is damaged: {error}") from error

    def to_hf_tokenizers(self, *, byte_level: bool = False) -> dict[str, Any]:
        """These merges as the content of a Hugging Face ``tokenizer.json``; ids stay what they are.

        Its text is ``hf_text(ids)``, one character a base id. With ``byte_level`` (256 base ids only) it is any text,
        whose UTF-8 bytes are the ids.

        Raises:
            InputError: merges of a grid, ``byte_level`` with other base ids, or two ids that stand for the same.
        """
        if self.axes != "flat":
            raise InputError("merges along the axes of a grid have no Hugging Face form; train with axes='flat'")
        if byte_level and self.base_size != 256:
            raise InputError(f"byte_level needs 256 base ids, these merges have {self.base_size}; leave it out")
        return bpe_file.hf_tokenizer(self.pairs.tolist(), self.base_size, byte_level=byte_level)

    def save_hf(self, path: str | os.PathLike[str], *, byte_level: bool = False) -> None:
        """Write ``to_hf_tokenizers`` as a file for ``tokenizers.Tokenizer.from_file``."""
        bpe_file.write_json(path, self.to_hf_tokenizers(byte_level=byte_level))

    def hf_text(self, ids: Any) -> str:
        """The text that the Hugging Face tokenizer reads for base ids: one character each (``bpe_file.alphabet``)."""
        letters = bpe_file.alphabet(self.base_size)
        return "".join([letters[i] for i in self._base_ids(ids).tolist()])

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        longest = self.extents_VA[self.extents_VA.astype(np.float64).prod(axis=1).argmax()].tolist()
        size = f"{longest[2]}" if self.axes == "flat" else "x".join(map(str, longest))
        return f"Merges({self.num_merges} {self.axes} merges over {self.base_size} base ids, longest {size})"

    def _columns(self) -> npt.NDArray[np.uint32]:
        return self.pairs if self.axis is None else np.column_stack([self.pairs, self.axis]).astype(np.uint32)

    def _sha256(self) -> str:
        return bpe_file.digest(self._columns().tolist(), None)

    def _check_id(self, bpe_id: int) -> None:
        if not 0 <= bpe_id < self.vocab_size:
            raise InputError(f"a merged id must lie in [0, {self.vocab_size}), got {bpe_id}")

    def _base_ids(self, values: Any) -> Ids:
        ids = as_ids(values, what="ids")
        expected = 1 if self.axes == "flat" else 3
        if ids.ndim != expected:
            shape = "(L,)" if expected == 1 else "(t, h, w)"
            raise InputError(f"ids for {self.axes} merges must have the shape {shape}, got {ids.shape}")
        if ids.size and int(ids.max()) >= self.base_size:
            raise InputError(
                f"ids must lie in [0, {self.base_size}), found {int(ids.max())}; are they of another codebook?"
            )
        return ids

    def _rules(self) -> Rules:
        from .bpe_encode import rules_of

        if "rules" not in self._made:
            axis = np.zeros(len(self.pairs), np.uint8) if self.axis is None else self.axis
            self._made["rules"] = rules_of(self.pairs, axis, self.base_size)
        rules: Rules = self._made["rules"]
        return rules

    def _expansions(self) -> Expansions:
        from .bpe_decode import expansions_of

        if "expansions" not in self._made:
            self._made["expansions"] = expansions_of(
                self.pairs, self._axis_M, self.extents_VA, self.base_size, smallest_unsigned(self.base_size)
            )
        expansions: Expansions = self._made["expansions"]
        return expansions

    def _encode_flat(self, parts: list[Ids]) -> list[Ids]:
        from . import bpe_encode, bpe_flat

        border = self.vocab_size
        cells = join(parts, border=border, dtype=cell_dtype(border + 1), boundaries=True)
        widths = np.append(np.minimum(self.extents_VA[:, 2], MOST_CELLS), 1).astype(np.int32)
        block = _block_size(self.num_merges)
        lists = bpe_encode.Lists.empty(self.num_merges)
        bpe_encode.encode_flat(cells, self._rules(), lists, widths, self.base_size, border, block)
        cells = cells[: bpe_flat.compact(cells, widths, self.base_size)]
        borders = np.flatnonzero(cells == border)
        return [cells[a + 1 : b] for a, b in itertools.pairwise(borders)]

    def _encode_grids(self, parts: list[Ids]) -> list[Ids]:
        from . import bpe_encode

        full = [part for part in parts if part.size]
        encoded: Iterator[Ids] = iter(())
        if full:
            dtype, flag = flagged(self.vocab_size)
            sheet = lay_out(full, flag=flag, dtype=dtype)
            steps, crosses = sheet.steps(np.minimum(self.extents_VA, MOST_CELLS))
            lists = bpe_encode.Lists.empty(self.num_merges)
            bpe_encode.encode_grids(
                sheet.cells, self._rules(), lists, steps, crosses, sheet.strides, sheet.axes, self.base_size, flag
            )
            encoded = iter([np.asarray(box[box < flag]) for box in sheet.boxes])
        return [next(encoded) if part.size else part.reshape(-1) for part in parts]

    def _decode_flat(self, ids: Ids) -> Ids:
        from . import bpe_decode

        expansions = self._expansions()
        size = int(bpe_decode.decoded_size(ids, expansions.spans))
        _check_decoded(size)
        out = np.empty(size + bpe_decode.WIDE, smallest_unsigned(self.base_size))
        bpe_decode.decode_flat(ids, expansions, self.base_size, out)
        return out[:size]

    def _decode_grid(self, ids: Ids, grid: Grid | tuple[int, int, int]) -> Ids:
        from . import bpe_decode

        shape = (grid.t, grid.h, grid.w) if isinstance(grid, Grid) else tuple(grid)
        if len(shape) != 3 or min(shape) < 0:
            raise InputError(f"the grid to decode must be (t, h, w), got {grid}")
        _check_decoded(math.prod(shape))
        out, is_filled = np.zeros(shape, smallest_unsigned(self.base_size)), np.zeros(shape, np.bool_)
        fit, at = bpe_decode.decode_grid(ids, self._expansions(), self.base_size, out, is_filled)
        if fit != bpe_decode.FITS:
            wrong = {
                bpe_decode.SPILLS: f"the block of id number {at} does not fit in",
                bpe_decode.OVERLAPS: f"the block of id number {at} lies over others in",
                bpe_decode.TOO_MANY: f"the {ids.size} ids are more than fill",
                bpe_decode.TOO_FEW: f"the {ids.size} ids are fewer than fill",
            }[int(fit)]
            size = "x".join(map(str, shape))
            raise InputError(f"{wrong} a grid of {size}; give the grid and the merges they were encoded with")
        return out


def _whole_numbers(values: list[Any]) -> npt.NDArray[np.uint32]:
    """A list of a file as uint32; ValueError or OverflowError where it holds anything else."""
    numbers = np.array(values) if values else np.empty(0, np.uint32)
    if numbers.dtype.kind not in "iu" or (numbers.size and not 0 <= int(numbers.min()) <= int(numbers.max()) < 1 << 32):
        raise ValueError("its merges and counts must be whole numbers of at most 32 bits")
    return numbers.astype(np.uint32)


def _block_size(num_merges: int) -> int:
    """How many ids are encoded at a time: few for the cache, many so that the loop over merges counts little."""
    return max(1 << 16, 16 * num_merges)


def _extents(axis: npt.NDArray[np.uint8], pairs: npt.NDArray[np.uint32], base_size: int) -> npt.NDArray[np.int64]:
    """How many cells (t, h, w) each id stands for, (V, 3); lengths beyond 2^40 are cut to that."""
    made: list[tuple[int, ...]] = []
    for r, ((left, right), along) in enumerate(zip(pairs.tolist(), axis.tolist())):
        one = made[left - base_size] if left >= base_size else (1, 1, 1)
        two = made[right - base_size] if right >= base_size else (1, 1, 1)
        if along > 2 or one[:along] + one[along + 1 :] != two[:along] + two[along + 1 :]:
            raise InputError(
                f"merge {r} joins blocks of {one} and {two} cells along axis {along}, which do not line up"
            )
        made.append((*one[:along], min(one[along] + two[along], 1 << 40), *one[along + 1 :]))
    extents = np.ones((base_size + len(made), 3), np.int64)
    extents[base_size:] = np.array(made, np.int64).reshape(-1, 3)
    return extents


def _groups(parts: list[Ids]) -> list[list[Ids]]:
    """Parts in groups of bounded size, so that many short ones share the cost of a call."""
    groups: list[list[Ids]] = []
    room = 0
    for part in parts:
        if part.size + 1 > room:
            groups.append([])
            room = max(_GROUP, part.size + 1)
        groups[-1].append(part)
        room -= part.size + 1
    return groups


def _check_decoded(size: int) -> None:
    if size > MOST_CELLS:
        raise InputError(f"these ids stand for {size:,} base ids, more than are decoded at once ({MOST_CELLS:,})")
