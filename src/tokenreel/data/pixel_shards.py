"""Pixel shards as a collection: packed frames, any run of which is read without the rest and without a video decoder.

::

    tokenreel prepare clips photos -o packed --short-side 256 --fps 15

    packed = open_collection("packed")
    packed[3].clip(Selection(every=2, max_frames=17))     # 17 frames decoded, no more

A row of the Parquet files is a frame. Reading needs Pillow, pyarrow and numpy only. ``pixel_write`` writes the files,
``pixel_manifest`` has the list of them. Letters: T frames, H W pixels.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import FormatError, InputError, MediaError
from tokenreel.media.frames import Chooser, Selection, uniform_indices
from tokenreel.media.info import steady_fps
from tokenreel.media.pixels import parse_size, resize
from tokenreel.types import Clip

from .collection import Collection
from .example import Example
from .payload import Payload, Size
from .pixel_manifest import MANIFEST_NAME, ClipEntry, PixelManifest, PixelShard, PixelSpec, examine_pixels, sha256_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PixelCollection", "PixelPayload", "PixelReader"]

Times = npt.NDArray[np.float64]
_OPEN_FILES = 256
_FORMATS = ("WEBP", "JPEG", "PNG")


class PixelReader:
    """The clips of a folder of pixel shards, or of one shard, by their number over all shards.

    Opening reads the manifest; a shard is opened when it is needed. Readers pickle, and may be used after a fork.

    Raises:
        InputError: nothing is there.
        FormatError: no manifest, or a shard is missing, cut off, foreign or newer; the message names the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            self.directory, self.manifest = self.path, PixelManifest.read(self.path)
        elif self.path.exists():
            spec, clips, file = examine_pixels(self.path)
            rows, size = file.metadata.num_rows, self.path.stat().st_size
            shard = PixelShard(name=self.path.name, num_clips=len(clips), num_frames=rows, num_bytes=size, sha256="")
            self.directory = self.path.parent
            self.manifest = PixelManifest(spec=spec, shards=(shard,), complete=True)
        else:
            raise InputError(f"there is no folder or file {self.path}")
        for shard in self.manifest.shards:
            self._check_size(shard)
        self._reset()

    def __len__(self) -> int:
        return self._starts[-1]

    def __repr__(self) -> str:
        manifest = self.manifest
        return f"PixelReader({len(self)} clips, {manifest.num_frames} frames in {len(manifest.shards)} shards)"

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("path", "directory", "manifest")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    def spec(self) -> PixelSpec:
        """How the frames were made."""
        return self.manifest.spec

    def entry(self, index: int) -> ClipEntry:
        """What is known of a clip."""
        shard, at = self._place(index)
        return self._file(shard).clips[at]

    def times(self, index: int) -> Times:
        """float64 (T,): when each frame of a clip is shown, from its first on."""
        shard, at = self._place(index)
        file = self._file(shard)
        first = file.clips[at].first_row
        return file.times()[first : first + file.clips[at].num_frames]

    def pictures(self, index: int, frames: Sequence[int]) -> list[bytes]:
        """The encoded pictures of these frames of a clip, in this order; only their row groups are read."""
        shard, at = self._place(index)
        file = self._file(shard)
        clip = file.clips[at]
        if any(not 0 <= frame < clip.num_frames for frame in frames):
            raise InputError(f"{self.path}: clip {index} has the frames 0..{clip.num_frames - 1}, got {list(frames)}")
        return file.pictures([clip.first_row + frame for frame in frames])

    def verify(self) -> list[str]:
        """Read every file and compare it with its hash; what is wrong, one sentence each."""
        wrong = []
        for shard in self.manifest.shards:
            found = sha256_of(self.directory / shard.name)
            if shard.sha256 and found != shard.sha256:
                wrong.append(f"{self.directory / shard.name} has SHA-256 {found}, its manifest says {shard.sha256}")
        return wrong

    def _reset(self) -> None:
        self._starts = [0, *accumulate(shard.num_clips for shard in self.manifest.shards)]
        self._files: OrderedDict[int, _ShardFile] = OrderedDict()
        self._process = os.getpid()

    def _check_size(self, shard: PixelShard) -> None:
        path = self.directory / shard.name
        if not path.is_file():
            raise FormatError(f"{path} is missing, and {MANIFEST_NAME} lists it; copy it again")
        if path.stat().st_size != shard.num_bytes:
            raise FormatError(
                f"{path} has {path.stat().st_size} bytes, its manifest says {shard.num_bytes}; it is cut off or was "
                "changed, copy it again"
            )

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {self.path}, which has {len(self)} clips")
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def _file(self, number: int) -> _ShardFile:
        if self._process != os.getpid():  # a forked worker opens its own files
            self._reset()
        if number in self._files:
            self._files.move_to_end(number)
            return self._files[number]
        shard = self.manifest.shards[number]
        file = _ShardFile(self.directory / shard.name)
        if (len(file.clips), file.spec) != (shard.num_clips, self.spec):
            raise FormatError(f"{file.path} is not the shard that its manifest lists; copy it again")
        self._files[number] = file
        if len(self._files) > _OPEN_FILES:
            self._files.popitem(last=False)
        return file


class _ShardFile:
    """One open shard; rows are counted from 0 within the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec, self.clips, self._parquet = examine_pixels(path)
        metadata = self._parquet.metadata
        rows = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self._starts = [0, *accumulate(rows)]
        self._times: Times | None = None

    def times(self) -> Times:
        """float64: of all rows."""
        if self._times is None:
            column = self._parquet.read(columns=["pts_seconds"], use_threads=False)["pts_seconds"]
            self._times = column.to_numpy()
        return self._times

    def pictures(self, rows: Sequence[int]) -> list[bytes]:
        """The pictures of these rows."""
        groups = sorted({bisect_right(self._starts, row) - 1 for row in rows})
        columns = {}
        for group in groups:
            try:
                table = self._parquet.read_row_group(group, columns=["picture"], use_threads=False)
            except (OSError, ValueError) as error:
                raise FormatError(f"{self.path} is damaged in row group {group} ({error}); copy it again") from error
            columns[group] = table["picture"]
        found = []
        for row in rows:
            group = bisect_right(self._starts, row) - 1
            found.append(columns[group][row - self._starts[group]].as_py())
        return found


@dataclass(frozen=True, slots=True)
class PixelPayload(Payload):
    """One clip of pixel shards."""

    reader: PixelReader
    index: int
    kind = "pixels"

    def what(self) -> str:
        """For messages."""
        return f"clip {self.index} of the pixel shards {self.reader.path}"

    @property
    def entry(self) -> ClipEntry:
        """What is known of it: size, number of frames, rate."""
        return self.reader.entry(self.index)

    @property
    def pts_seconds(self) -> Times:
        """float64 (T,): when each frame is shown."""
        return self.reader.times(self.index)

    def images(self, frames: Sequence[int]) -> list[Image.Image]:
        """These frames as RGB images of Pillow; a frame that is asked for again is decoded once.

        Raises:
            MediaError: a picture is damaged.
        """
        wanted = list(dict.fromkeys(frames))
        decoded = {frame: self._image(frame, data) for frame, data in zip(wanted, self._pictures(wanted))}
        return [decoded[frame] for frame in frames]

    def clip(self, selection: Selection, size: Size) -> Clip:
        """The chosen frames; only they are decoded."""
        entry, pts = self.entry, self.pts_seconds
        frames, times = chosen(pts, selection, entry.fps)
        if not frames:
            raise InputError(f"{self.what()}: no frame lies in the chosen range ({selection.as_json()})")
        pixels = np.stack([np.asarray(image) for image in self.images(frames)])
        seconds = np.array(times, np.float64)
        return Clip(
            frames_THWC=resize(pixels, parse_size(size)),
            pts_seconds=seconds,
            fps=selection.fps or steady_fps(seconds),
            source=entry.source,
        )

    def array(self) -> npt.NDArray[np.uint8]:
        """All frames, uint8 (T, H, W, 3)."""
        return self.clip(Selection(), None).frames_THWC

    def _pictures(self, frames: Sequence[int]) -> list[bytes]:
        return self.reader.pictures(self.index, frames)

    def _image(self, frame: int, data: bytes) -> Image.Image:
        from PIL import Image

        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            image.load()
        except Exception as error:  # Pillow's plugins raise many kinds on damaged data
            raise MediaError(f"{self.what()}: the picture of frame {frame} is damaged ({error})") from error
        return image if image.mode == "RGB" else image.convert("RGB")


def chosen(pts_seconds: Times, selection: Selection, fps: float | None) -> tuple[list[int], list[float]]:
    """Numbers of the chosen frames and the times at which each is wanted; ``fps`` tells how long the last is shown."""
    if selection.uniform is not None:
        inside = np.flatnonzero((pts_seconds >= selection.start_seconds - 1e-9) & (pts_seconds < selection.end_seconds))
        if not len(inside):
            return [], []
        some = inside[uniform_indices(len(inside), selection.uniform)][: selection.max_frames]
        return some.tolist(), pts_seconds[some].tolist()
    chooser = Chooser(selection)
    frames: list[int] = []
    times: list[float] = []
    following = [*pts_seconds[1:].tolist(), None]
    for index, (pts, after) in enumerate(zip(pts_seconds.tolist(), following)):
        wanted = chooser.wanted(pts, after, 1 / fps if fps else 0.0)
        frames += [index] * len(wanted)
        times += wanted
        if chooser.is_done:
            break
    return frames, times


class PixelCollection(Collection):
    """The clips of a folder of pixel shards or of one shard, in the order in which they were written.

    Args:
        path: the folder, or one ``.parquet`` file of it.
        split: the clips of one split; must be said where there are several, ``all`` takes all.
        group: a regular expression on the key whose first bracket is the group.

    Raises:
        InputError: nothing is there, or no clip of that split.
    """

    def __init__(self, path: str | os.PathLike[str], *, split: str | None = None, group: str | None = None) -> None:
        super().__init__(str(path), group=group)
        self.reader = PixelReader(path)
        self._numbers = self._of_split(split)

    def __len__(self) -> int:
        return len(self._numbers)

    def key(self, index: int) -> str:
        """The key of the example that the clip was made from; pieces of one have ``#1``, ``#2`` ... behind it."""
        return self.reader.entry(self._numbers[index]).key

    def _example(self, index: int) -> Example:
        number = self._numbers[index]
        entry = self.reader.entry(number)
        payload = PixelPayload(self.reader, number)
        return Example(key=entry.key, source=f"{self.name}:{entry.key}", payload=payload, **_facts(entry))

    def _facts(self, index: int) -> dict[str, Any]:
        return _facts(self.reader.entry(self._numbers[index]))

    def _of_split(self, split: str | None) -> Sequence[int]:
        reader = self.reader
        if split == "all":
            return range(len(reader))
        splits = [reader.entry(number).split for number in range(len(reader))]
        names = sorted({name for name in splits if name is not None})
        if split is None:
            if len(names) > 1:
                raise InputError(
                    f"{self.name} has the splits {', '.join(names)}: choose one with split=, or split='all'"
                )
            return range(len(reader))
        if split not in names:
            raise InputError(f"{self.name} has no clips of split {split!r}; it has {', '.join(names) or 'no splits'}")
        return [number for number, name in enumerate(splits) if name == split]


def _facts(entry: ClipEntry) -> dict[str, Any]:
    meta = {**entry.meta, "origin": entry.source} | ({} if entry.split is None else {"split": entry.split})
    return {"caption": entry.caption, "label": entry.label, "group": entry.group, "meta": meta}
