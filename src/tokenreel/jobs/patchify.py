"""Video to a patch sequence, and the sequence to video again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.errors import InputError
from tokenreel.media.frames import Selection
from tokenreel.media.read import open_media
from tokenreel.media.write import open_writer

from .ahead import ahead
from .progress import Progress, silent
from .sequence import PatchSequence, SequenceConfig, SequenceHeader, SequenceWriter

__all__ = ["Patchified", "patchify_file", "restore_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patchified:
    """What was written."""

    path: Path
    header: SequenceHeader

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        header, grid = self.header, self.header.grid
        return {
            "path": str(self.path),
            "frames": header.size[0],
            "height": header.size[1],
            "width": header.size[2],
            "fps": header.fps,
            "grid": [grid.t, grid.h, grid.w],
            "patches": grid.num_cells,
            "values": header.config.width,
            "dtype": header.config.dtype,
            "bytes": self.path.stat().st_size,
        }


def patchify_file(
    video: str | os.PathLike[str],
    output: str | os.PathLike[str],
    config: SequenceConfig | None = None,
    selection: Selection | None = None,
    *,
    size: int | tuple[int, int] | str | None = None,
    progress: Progress = silent,
) -> Patchified:
    """Write the patches of a video's chosen frames as a sequence of vectors (a safetensors file).

    Memory does not grow with the length of the video; the file appears whole or not at all.

    Raises:
        InputError: the video cannot be read, the options exclude each other, or the output cannot be written.
    """
    config, selection = config or SequenceConfig(), selection or Selection()
    if Path(output).suffix != ".safetensors":
        raise InputError(f"the patch sequence must be a .safetensors file, got {os.fspath(output)}")
    with open_media(video, selection, size=size) as reader:
        reading = {
            "source": os.path.relpath(Path(video).resolve(), Path(output).resolve().parent),
            "selection": selection.as_json(),
            "size": None if size is None else [reader.height, reader.width],
        }
        total = reader.estimated_frames()
        times: list[float] = []
        with SequenceWriter(output, config, reading) as writer:
            for done, frame in enumerate(ahead(reader), start=1):
                writer.write(frame.pixels_HWC, frame.pts_seconds)
                times.append(frame.pts_seconds)
                progress(done, total)
            header = writer.finish(reader.rate(np.array(times)))
    return Patchified(path=Path(output), header=header)


def restore_file(
    sequence: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    lossless: bool = False,
    quality: int = 85,
    progress: Progress = silent,
) -> tuple[Path, int]:
    """Write the video that a patch sequence holds; returns the path and the number of frames.

    Raises:
        InputError: the sequence cannot be read, or the format of the output is unknown.
    """
    opened = PatchSequence(sequence)
    total = opened.header.size[0]
    times = opened.pts_seconds - opened.pts_seconds[0]
    with open_writer(output, fps=opened.header.fps or 25.0, lossless=lossless, quality=quality) as writer:
        for done, (frame, seconds) in enumerate(zip(ahead(opened.frames()), times), start=1):
            writer.write(frame, float(seconds))
            progress(done, total)
    return writer.path, total
