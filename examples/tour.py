"""The house in one walk: a clip is read, patchified, embedded, encoded, decoded and written again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import tokenreel as tr
from tokenreel.samples import SAMPLE_CLIP


def main() -> None:
    clip = tr.read(SAMPLE_CLIP, tr.Selection(uniform=8), size=128)
    print("read     ", clip)

    patches = tr.patchify(clip.frames_THWC, (2, 16, 16))
    restored = tr.unpatchify(patches, (2, 16, 16), clip.size)
    print("patchify ", patches.shape, patches.dtype, "exact:", np.array_equal(restored, clip.frames_THWC))

    video = tr.to_video(clip.frames_THWC)
    embed = tr.TubeletEmbed(in_channels=3, dim=64, patch_size=(2, 16, 16))
    print("embed    ", tuple(video.shape), "->", tuple(embed(video[None]).shape))

    tokenizer = tr.load("raw:2,16,16")
    [tokens] = tokenizer.encode([video])
    print("encode   ", tokens)

    with tempfile.TemporaryDirectory() as folder:
        path = tr.save_tokens(Path(folder) / "clip.tokens", tokens.with_meta(caption="a wall with moving shapes"))
        loaded = tr.load_tokens(path)
        [decoded] = tokenizer.decode([loaded])
        print("file     ", path.name, path.stat().st_size, "bytes, caption:", loaded.meta["caption"])
        exact = np.array_equal(np.moveaxis(decoded, 0, -1), clip.frames_THWC)
        print("decode   ", decoded.shape, decoded.dtype, "exact:", exact)

        for name in ("clip.mp4", "clip.gif", "clip.png"):
            written = tr.write(Path(folder) / name, clip)
            print("write    ", name, written.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
