"""Byte-pair merges from files and to files: train, encode, decode.

``.tokens`` files and shards stay what they are, with layout ``merged``; any other file is taken as bytes and becomes a
``tokenreel.bpe`` file (docs/formats.md), from which it comes back byte for byte.

Letters: N merged ids, L ids, T H W frames and pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from einops import rearrange

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.files import whole_file
from tokenreel.jobs.inspect import BPE_FORMAT, kind_of
from tokenreel.jobs.progress import Progress, silent
from tokenreel.tokens.bpe import Merges, train
from tokenreel.tokens.file import TokenFile
from tokenreel.tokens.file import save as save_tokens
from tokenreel.tokens.shards import ShardReader, ShardWriter
from tokenreel.tokens.tensors import TensorReader, TensorWriter
from tokenreel.types import Tokens, smallest_unsigned

__all__ = [
    "BpeTrained",
    "Material",
    "decode_merged",
    "encode_merged",
    "material_of",
    "merged",
    "train_merges",
    "unmerged",
]

VERSION = 1
Axes = Literal["flat", "grid"]
Ids = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What merges are trained on: 1-D sequences, or 3-D grids (t, h, w), of ids in [0, base_size)."""

    sequences: list[Ids]
    base_size: int

    @property
    def num_ids(self) -> int:
        """Ids in all sequences."""
        return sum(sequence.size for sequence in self.sequences)


@dataclass(frozen=True, slots=True, kw_only=True)
class BpeTrained:
    """What was trained."""

    path: Path
    merges: Merges
    num_ids: int
    num_merged: int
    interrupted: bool

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; ``bits`` are ids times log2 of the vocabulary."""
        base, vocab = self.merges.base_size, self.merges.vocab_size
        return {
            "path": str(self.path),
            "axes": self.merges.axes,
            "base_size": base,
            "vocab_size": vocab,
            "merges": vocab - base,
            "interrupted": self.interrupted,
            "ids": self.num_ids,
            "merged_ids": self.num_merged,
            "bits_before": round(self.num_ids * float(np.log2(max(2, base)))),
            "bits_after": round(self.num_merged * float(np.log2(vocab))),
        }


def train_merges(
    files: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    vocab_size: int,
    boundaries: bool = True,
    axes: Axes = "flat",
    progress: Progress = silent,
) -> BpeTrained:
    """Learn byte-pair merges from files and save them as JSON; an interruption saves what is learned by then.

    Raises:
        InputError: a file cannot be read, the files' ids are of different codebooks, or the vocabulary is too small.
    """
    if Path(output).suffix != ".json":
        raise InputError(f"the merges must be a .json file, got {os.fspath(output)}")
    parts = [material_of(file, axes=axes, boundaries=boundaries) for file in files]
    sizes = {part.base_size for part in parts}
    if len(sizes) != 1:
        raise MismatchError(
            f"the files' ids are of different codebooks: {sorted(sizes)}; train merges for one at a time"
        )
    material = Material([sequence for part in parts for sequence in part.sequences], sizes.pop())
    merges = train(
        material.sequences,
        vocab_size=vocab_size,
        base_size=material.base_size,
        boundaries=boundaries,
        axes=axes,
        callback=progress,
    )
    merges.save(output)
    count = sum(map(len, merges.encode_many(_joined(material.sequences, boundaries, axes))))
    return BpeTrained(
        path=Path(output),
        merges=merges,
        num_ids=material.num_ids,
        num_merged=count,
        interrupted=merges.interrupted,
    )


def material_of(path: str | os.PathLike[str], *, axes: Axes = "flat", boundaries: bool = True) -> Material:
    """The sequences of one file.

    ``.tokens`` and shards: a sequence a record, a patch where they are raw bytes; patch sequences: a patch; any other
    file: its bytes. With ``axes="grid"``: a record's grid of ids; raw bytes and patches give their three colour planes.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind in ("tokens", "shards"):
        records = [TokenFile(path).tokens()] if kind == "tokens" else list(ShardReader(path))
        return Material([part for tokens in records for part in sequences_of(tokens, axes)], records[0].codebook_size)
    if kind == "patches":
        return _patches_material(path, axes)
    if axes == "grid":
        raise InputError(f"{path} has no grid; merge its bytes with --axes flat")
    return Material([np.fromfile(path, np.uint8)], 256)


def sequences_of(tokens: Tokens, axes: Axes) -> list[Ids]:
    """The sequences in which one record's pairs are counted."""
    grid = tokens.grid
    if tokens.layout == "merged":
        raise InputError("these ids are merged already; merges of merges are one longer list of merges: train anew")
    if axes == "flat":
        return list(tokens.ids_L.reshape(grid.num_cells, -1)) if tokens.layout == "bytes" else [tokens.ids_L]
    if tokens.layout == "grid":
        return [rearrange(tokens.ids_L, "(t h w) -> t h w", t=grid.t, h=grid.h, w=grid.w)]
    if tokens.layout == "bytes":
        from tokenreel.jobs.encode import tokenizer_of

        (video,) = tokenizer_of(tokens, "this file").decode([tokens])
        return [np.ascontiguousarray(plane) for plane in video]
    raise InputError(f"tokens of layout {tokens.layout!r} have no grid; merge them with --axes flat")


def _patches_material(path: Path, axes: Axes) -> Material:
    from tokenreel.jobs.sequence import PatchSequence

    opened = PatchSequence(path)
    if opened.header.config.dtype != "uint8":
        raise InputError(f"{path} holds {opened.header.config.dtype} vectors; byte pairs need --dtype uint8")
    if axes == "grid":
        frames = np.stack(list(opened.frames()))
        return Material([np.ascontiguousarray(frames[..., channel]) for channel in range(3)], 256)
    return Material(list(TensorReader(path).whole("patches")), 256)


def _joined(sequences: list[Ids], boundaries: bool, axes: Axes) -> list[Ids]:
    return sequences if boundaries or axes == "grid" else [np.concatenate(sequences)]


# -- tokens ---------------------------------------------------------------------------------------------------------


def merged(tokens: Tokens, merges: Merges) -> Tokens:
    """The same clip with its ids merged: layout ``merged``, ``codebook_size`` that of the merges.

    Raises:
        MismatchError: the merges are of another codebook.
    """
    sequences = sequences_of(tokens, merges.axes)
    if tokens.codebook_size != merges.base_size:
        raise MismatchError(
            f"these merges are over {merges.base_size} ids, the tokens have {tokens.codebook_size} codes; "
            "train merges on tokens of this tokenizer"
        )
    parts = merges.encode_many(sequences)
    about = {
        "merges": merges.fingerprint,
        "layout": tokens.layout,
        "codebook_size": tokens.codebook_size,
        "fingerprint": tokens.fingerprint,
        "counts": [len(part) for part in parts] if len(parts) > 1 and merges.axes == "grid" else None,
    }
    both = hashlib.sha256(f"{tokens.fingerprint}+{about['merges']}".encode()).hexdigest()
    return replace(
        tokens,
        ids_L=np.concatenate(parts),
        layout="merged",
        codebook_size=merges.vocab_size,
        fingerprint=both,
        meta={**tokens.meta, "bpe": about},
    )


def unmerged(tokens: Tokens, merges: Merges) -> Tokens:
    """Inverse of ``merged``, exact.

    Raises:
        MismatchError: the tokens were not merged, or by other merges.
    """
    about = tokens.meta.get("bpe")
    if tokens.layout != "merged" or not isinstance(about, dict):
        raise MismatchError(f"these ids are not merged (layout {tokens.layout!r})")
    if about["merges"] != merges.fingerprint:
        raise MismatchError("these ids were merged by other merges; give the .json that made them")
    grid = tokens.grid
    if merges.axes == "flat":
        ids = merges.decode(tokens.ids_L)
    elif about["layout"] == "grid":
        ids = merges.decode(tokens.ids_L, grid=grid).reshape(-1)
    else:
        ids = _bytes_of_planes(tokens, merges, about)
    meta = {key: value for key, value in tokens.meta.items() if key != "bpe"}
    return replace(
        tokens,
        ids_L=ids,
        layout=about["layout"],
        codebook_size=about["codebook_size"],
        fingerprint=about["fingerprint"],
        meta=meta,
    )


def _bytes_of_planes(tokens: Tokens, merges: Merges, about: dict[str, Any]) -> Ids:
    from tokenreel.jobs.encode import tokenizer_of

    ends = np.cumsum(about["counts"])
    planes = [merges.decode(part, grid=tokens.size) for part in np.split(tokens.ids_L, ends[:-1])]
    (again,) = tokenizer_of(tokens, "this file").encode([np.stack(planes).astype(np.uint8)])
    return again.ids_L


# -- files ----------------------------------------------------------------------------------------------------------


def encode_merged(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    merges: Merges,
    *,
    progress: Progress = silent,
) -> tuple[int, int]:
    """Write a file's ids merged; returns (ids before, ids after).

    Raises:
        InputError: the file cannot be read, or the output is of the wrong kind.
    """
    source, output = Path(source), Path(output)
    kind = kind_of(source)
    if kind == "tokens":
        tokens = TokenFile(source).tokens()
        result = merged(tokens, merges)
        save_tokens(_suffix(output, ".tokens"), result)
        return tokens.num_tokens, result.num_tokens
    if kind == "shards":
        return _rewrite_shards(source, output, lambda tokens: merged(tokens, merges), progress)
    data = np.fromfile(source, np.uint8)
    ids = _encode_bytes(data, merges, source)
    metadata = {
        "format": BPE_FORMAT,
        "version": str(VERSION),
        "bpe": json.dumps({"merges": merges.fingerprint, "vocab_size": merges.vocab_size, "bytes": int(data.size)}),
    }
    with TensorWriter(_suffix(output, ".safetensors"), name="bpe_ids", dtype=ids.dtype) as writer:
        writer.reserve(metadata)
        writer.append(ids)
        writer.finish(metadata)
    return int(data.size), int(ids.size)


def decode_merged(
    source: str | os.PathLike[str], output: str | os.PathLike[str], merges: Merges, *, progress: Progress = silent
) -> int:
    """Inverse of ``encode_merged``; returns the number of ids written.

    Raises:
        MismatchError: the file was merged by other merges.
    """
    source, output = Path(source), Path(output)
    kind = kind_of(source)
    if kind == "tokens":
        tokens = unmerged(TokenFile(source).tokens(), merges)
        save_tokens(_suffix(output, ".tokens"), tokens)
        return tokens.num_tokens
    if kind == "shards":
        return _rewrite_shards(source, output, lambda tokens: unmerged(tokens, merges), progress)[1]
    if kind != "bpe":
        raise FormatError(f"{source} holds no merged ids; give what tokenreel bpe encode wrote")
    reader = TensorReader(source)
    reader.check_format(BPE_FORMAT, VERSION)
    if reader.json("bpe").get("merges") != merges.fingerprint:
        raise MismatchError(f"{source} was merged by other merges; give the .json that made it")
    data = merges.decode(reader.whole("bpe_ids")).astype(np.uint8)
    with whole_file(output) as temporary:
        data.tofile(temporary)
    return int(data.size)


def _encode_bytes(data: Ids, merges: Merges, source: Path) -> Ids:
    if merges.base_size != 256 or merges.axes != "flat":
        raise MismatchError(
            f"{source} is taken as bytes, which need flat merges over 256 ids; these are {merges.axes}, "
            f"over {merges.base_size}"
        )
    return merges.encode(data).astype(smallest_unsigned(merges.vocab_size))


def _rewrite_shards(
    source: Path, output: Path, change: Callable[[Tokens], Tokens], progress: Progress
) -> tuple[int, int]:
    reader, after = ShardReader(source), 0
    with ExitStack() as stack:
        writer: ShardWriter | None = None
        for index, record in enumerate(reader, start=1):
            tokens = change(record)
            if writer is None:
                writer = ShardWriter(
                    output,
                    tokenizer=tokens.tokenizer,
                    fingerprint=tokens.fingerprint,
                    codebook_size=tokens.codebook_size,
                    layout=tokens.layout,
                )
                stack.enter_context(writer)
            writer.write(tokens)
            after += tokens.num_tokens
            progress(index, len(reader))
    return sum(shard.num_tokens for shard in reader.manifest.shards), after


def _suffix(path: Path, suffix: str) -> Path:
    if path.suffix != suffix:
        raise InputError(f"the merged ids of this file go into a {suffix} file, got {path}")
    return path
