"""The tour: one clip through everything that works, with the files and one picture left behind."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tokenreel.errors import TokenReelError
from tokenreel.jobs.bpe import train_merges
from tokenreel.jobs.check import check_file
from tokenreel.jobs.encode import decode_file, encode_file
from tokenreel.jobs.patchify import Patchified, patchify_file, restore_file
from tokenreel.jobs.sequence import PatchSequence, SequenceConfig
from tokenreel.jobs.sheet import save_picture, scenes_picture, tour_picture
from tokenreel.measure.psnr import psnr_db
from tokenreel.media.frames import Selection, uniform_indices
from tokenreel.media.read import open_media
from tokenreel.samples import SAMPLE_CLIP
from tokenreel.tokenizers.hub import DEFAULT, GENERATOR

__all__ = ["STORY", "Step", "demo_steps"]

_SHOWN = 4
_BPE_VOCABULARY = 8192
_MOST_FRAMES = 150
_MOST_PIXELS = 640 * 360
_LEARNED_FRAMES = 61
_LEARNED_SIDE = 192
_LEARNED_PART = 16
_SHOWN_OF_SCENE = 8
STORY = (
    ("a large plain red circle rests on a cream background", 2.0),
    ("a large plain red circle moves down on a cream background", 1.875),
    ("a large plain red circle grows on a cream background", 1.875),
)
"""What the generator is told: prompts, and how many seconds each lasts."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the tour: what it did, in words and in numbers."""

    name: str
    sentence: str
    seconds: float
    values: dict[str, Any] = field(default_factory=dict)


def demo_steps(
    video: str | os.PathLike[str] | None,
    output: str | os.PathLike[str],
    *,
    bar: Callable[[str], AbstractContextManager[Any]],
) -> Iterator[Step]:
    """Run the tour, giving each step as it is done. Long or large videos are cut to 150 frames of 640x360 or so.

    Raises:
        TokenReelError: the video cannot be read, or a step that must be exact is not.
    """
    source, folder = Path(video) if video is not None else SAMPLE_CLIP, Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    sequence, embedded = folder / "patches.safetensors", folder / "embedded.safetensors"

    start = time.perf_counter()
    with open_media(source) as reader:
        info = reader.info
    side = None
    if info.height * info.width > _MOST_PIXELS:
        side = max(16, round((_MOST_PIXELS * min(info.height, info.width) / max(info.height, info.width)) ** 0.5))
    selection = Selection(max_frames=_MOST_FRAMES)
    rate = f" at {info.fps:g} fps" if info.fps else ""
    yield _step(
        "read", f"{source.name}: {info.kind}, {info.codec} {info.width}x{info.height}{rate}, {info.colour}", start
    )

    start = time.perf_counter()
    with bar("patchify") as progress:
        plain = patchify_file(source, sequence, SequenceConfig(), selection, size=side, progress=progress)
    grid = plain.header.grid
    text = f"{grid.num_cells} patches of 16x16, grid {grid}, {sequence.name} {sequence.stat().st_size / 1e6:.1f} MB"
    yield _step("patchify", text, start, patches=grid.num_cells, frames=plain.header.size[0])

    start = time.perf_counter()
    with bar("check") as progress:
        checked = check_file(sequence, source, progress=progress)
    if not checked.exact:
        raise TokenReelError(
            f"the patches of {source} are not exact ({checked.psnr_db} dB): this is a fault of tokenreel"
        )
    yield _step("check", f"exact: all {len(checked.squared_errors)} frames, bit for bit", start, exact=checked.exact)

    start = time.perf_counter()
    config = SequenceConfig(embed="linear", dim=768, position="sincos", dtype="float32")
    with bar("embed") as progress:
        patchify_file(source, embedded, config, Selection(uniform=_SHOWN), size=side, progress=progress)
        error = check_file(embedded, source).embedding_error or 0.0
    text = f"{_SHOWN} frames as vectors of 768 with sin-cos positions; inverted again within {error:.1e}"
    yield _step("embed", text, start, embedding_error=error)

    start = time.perf_counter()
    with bar("tokens") as progress:
        encoded = encode_file(source, folder / "clip.tokens", selection=selection, size=side, progress=progress)
        decode_file(encoded.path, folder / "decoded.mkv", progress=progress)
    values = encoded.as_json()
    text = f"{values['tokens']} raw tokens of 256 codes in clip.tokens; decoded to decoded.mkv, lossless"
    yield _step("tokens", text, start, tokens=values["tokens"])

    start = time.perf_counter()
    with bar("bpe") as progress:
        learned = train_merges(
            [encoded.path], folder / "merges.json", vocab_size=_BPE_VOCABULARY, boundaries=False, progress=progress
        )
    values = learned.as_json()
    saved = values["bits_before"] / values["bits_after"]
    text = (
        f"{values['merges']} byte-pair merges over the pixel bytes: {values['ids']} ids become {values['merged_ids']}, "
        f"{saved:.2f} x fewer bits"
    )
    yield _step("bpe", text, start, bpe_saves=round(saved, 3))

    yield from _last_steps(source, folder, sequence, plain, error, bar)


def _last_steps(
    source: Path,
    folder: Path,
    sequence: Path,
    plain: Patchified,
    error: float,
    bar: Callable[[str], AbstractContextManager[Any]],
) -> Iterator[Step]:
    """What leaves something to look at."""
    start = time.perf_counter()
    with bar("restore") as progress:
        path, frames = restore_file(sequence, folder / "restored.mp4", progress=progress)
    yield _step("restore", f"{path.name}: {frames} frames, {path.stat().st_size / 1e3:.0f} kB of H.264", start)

    start = time.perf_counter()
    with bar("learned") as progress:
        short, values, learned = _learned(source, folder, progress)
    yield _step("learned", f"{short}; side_by_side.mp4", start, **values)

    start = time.perf_counter()
    with bar("generate") as progress:
        text, values = _generated(folder, progress)
    yield _step("generate", text, start, **values)

    start = time.perf_counter()
    notes = [source.name, f"embedding inverted within {error:.1e}", short]
    picture = _picture(source, sequence, plain, folder, notes, learned)
    yield _step("picture", f"{picture}: look at this first", start, picture=str(picture), folder=str(folder))


def _step(name: str, sentence: str, start: float, **values: Any) -> Step:
    return Step(name, sentence, time.perf_counter() - start, values)


def _learned(source: Path, folder: Path, progress: Any) -> tuple[str, dict[str, Any], list[Any]]:
    """The clip through the tokenizer that ships, and a film of both side by side.

    Returns a sentence, its figures, and some decoded frames.
    """
    from tokenreel.media.pixels import to_frames, to_video
    from tokenreel.media.read import read
    from tokenreel.media.write import write
    from tokenreel.tokenizers import load

    with open_media(source) as reader:
        side = min(_LEARNED_SIDE, reader.info.height, reader.info.width)
    clip = read(source, Selection(max_frames=_LEARNED_FRAMES), size=side)
    coder = load(DEFAULT)
    encoder, decoder = coder.encoder(), coder.decoder()
    video, parts = to_video(clip.frames_THWC), []
    for start in range(0, clip.num_frames, _LEARNED_PART):
        for tokens in encoder.push(video[:, start : start + _LEARNED_PART]):
            parts.append(tokens)
        progress(min(start + _LEARNED_PART, clip.num_frames), clip.num_frames)
    parts += encoder.finish()
    ids = sum(part.num_tokens for part in parts)
    decoded = [frames for part in parts for frames in decoder.push(part)] + decoder.finish()
    frames_THWC = np.concatenate([to_frames(frames) for frames in decoded])
    level = psnr_db(clip.frames_THWC, frames_THWC)
    bits = ids * math.log2(coder.codebook_size)
    rate = bits / clip.frames_THWC[..., 0].size
    gap = np.full_like(clip.frames_THWC[:, :, :4], 255)
    both = np.concatenate([clip.frames_THWC, gap, frames_THWC], axis=2)
    both = both[:, :, : both.shape[2] // 2 * 2]
    write(folder / "side_by_side.mp4", replace(clip, frames_THWC=np.ascontiguousarray(both)))
    frames, height, width = clip.size
    sentence = (
        f"{DEFAULT}: {frames} frames {width}x{height} as {ids:,} tokens of {coder.codebook_size:,} codes, "
        f"{rate:.3f} bits a pixel, {level:.1f} dB"
    )
    values = {"learned_tokens": ids, "learned_psnr_db": round(level, 3), "learned_bits_per_pixel": round(rate, 6)}
    return sentence, values, [frames_THWC[index] for index in uniform_indices(frames, min(_SHOWN, frames))]


def _generated(folder: Path, progress: Any) -> tuple[str, dict[str, Any]]:
    """A storyboard by the generator that ships, as a film and as a sheet of frames under their prompts."""
    from tokenreel.generate.scenes import SceneProgress
    from tokenreel.jobs.generate import generate_video
    from tokenreel.media.read import read

    board, path = folder / "story.yaml", folder / "story.mp4"
    scenes = [{"prompt": prompt, "seconds": seconds, "frames_carried": 1} for prompt, seconds in STORY]
    board.write_text(yaml.safe_dump({"size": "64x64", "window_frames": 16, "scenes": scenes}, sort_keys=False))

    def on_scene(now: SceneProgress) -> None:
        progress(now.frames_done, now.num_frames)

    made = generate_video(None, path, model=GENERATOR, storyboard=board, on_scene=on_scene)
    frames_THWC = read(path).frames_THWC
    shown, first = [], 0
    for (prompt, _), count in zip(STORY, made.storyboard.frame_counts()):
        shown.append((prompt, [frames_THWC[first + index] for index in uniform_indices(count, _SHOWN_OF_SCENE)]))
        first += count
    save_picture(scenes_picture(shown), folder / "story.png")
    sentence = f"{GENERATOR}: {len(STORY)} scenes, {made.num_frames} frames in story.mp4; story.png has their prompts"
    return sentence, {"story_frames": made.num_frames}


def _picture(
    source: Path, sequence: Path, plain: Patchified, folder: Path, notes: list[str], learned: list[Any]
) -> Path:
    header = plain.header
    frames, height, width = header.size
    wanted = set(uniform_indices(frames, min(_SHOWN, frames)).tolist())
    restored = [frame.copy() for index, frame in enumerate(PatchSequence(sequence).frames()) if index in wanted]
    size = None if header.reading["size"] is None else (height, width)
    with open_media(source, Selection(max_frames=frames), size=size) as reader:
        originals = [frame.pixels_HWC.copy() for index, frame in enumerate(reader) if index in wanted]
    assert all(np.array_equal(a, b) for a, b in zip(originals, restored))
    facts = [
        f"{Path(notes[0]).name}: {frames} frames {width}x{height} -> {header.grid.num_cells} patches of "
        f"{header.config.width} values, grid {header.grid}",
        f"restored from the patches: exact, bit for bit; linear {notes[1]} (range [-1, 1])",
        f"from tokens by {notes[2]}",
    ]
    picture = tour_picture(originals, restored, header.config.patch_size, facts, learned)
    return save_picture(picture, folder / "demo.png")
