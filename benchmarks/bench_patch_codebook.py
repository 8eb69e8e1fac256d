"""The simplest learned video codebook: principal components of patches and k-means, at the bits of a tokenizer.

    python benchmarks/bench_patch_codebook.py --train CLIPS --eval CLIPS [--codes 64000] [--tokenizer video-fsq]

First frames are cut into 1x8x8 patches, the others into 4x8x8 tubelets, one id each of as many codes as the tokenizer
has. k-means runs on the leading principal components; the components come from the training clips alone. The protocol
is that of `tokenreel eval`: the first 17 native frames, short side 256, centre crop.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from tokenreel.data.opening import open_collection
from tokenreel.measure.protocol import Protocol
from tokenreel.media.pixels import to_video
from tokenreel.tokenizers import load

PH = PW = 8
PT = 4


def videos_of(folder: str, frames: int) -> list[Tensor]:
    found = open_collection(folder)
    return [to_video(Protocol(frames=frames).read(found[index]).frames_THWC) for index in range(len(found))]


def cut(video_CTHW: Tensor, pt: int) -> Tensor:
    return rearrange(video_CTHW, "C (t pt) (h ph) (w pw) -> (t h w) (pt ph pw C)", pt=pt, ph=PH, pw=PW)


def kmeans(x_ND: Tensor, count: int, iterations: int, generator: torch.Generator) -> Tensor:
    centres = x_ND[torch.randperm(len(x_ND), generator=generator)[:count]].clone()
    for _ in range(iterations):
        index = nearest(x_ND, centres)
        sums = torch.zeros_like(centres).index_add(0, index, x_ND)
        counts = torch.bincount(index, minlength=len(centres))
        lost = counts == 0
        centres = torch.where(lost[:, None], centres, sums / counts.clamp(min=1)[:, None])
        centres[lost] = x_ND[torch.randint(len(x_ND), (int(lost.sum()),), generator=generator)]
    return centres


def nearest(x_ND: Tensor, centres: Tensor) -> Tensor:
    half = centres.square().sum(1) / 2
    return torch.cat([(part @ centres.t() - half).argmax(1) for part in x_ND.split(2048)])


class Codebook:
    """Components and centres of one kind of patch."""

    def __init__(self, patches: Tensor, count: int, width: int, iterations: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.mean = patches.mean(0)
        values = patches - self.mean
        self.basis = torch.linalg.eigh((values.T @ values).double())[1].flip(1)[:, :width].float()
        self.centres = kmeans(values @ self.basis, count, iterations, generator)

    def through(self, patches: Tensor) -> Tensor:
        """Each patch as its nearest code draws it."""
        index = nearest((patches - self.mean) @ self.basis, self.centres)
        return self.centres[index] @ self.basis.T + self.mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--eval", required=True)
    parser.add_argument("--codes", type=int, default=64_000)
    parser.add_argument("--width", type=int, default=16, help="principal components")
    parser.add_argument("--patches", type=int, default=200_000, help="patches that k-means sees, of each kind")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--tokenizer", default="video-fsq")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    start = time.perf_counter()
    train = videos_of(args.train, 33)
    stills = torch.cat([cut(video[:, ::8], 1) for video in train])
    tubelets = torch.cat([cut(video[:, 1 : 1 + (video.shape[1] - 1) // PT * PT], PT) for video in train])
    books = []
    for patches in (stills, tubelets):
        step = max(1, len(patches) // args.patches)
        books.append(Codebook(patches[::step], args.codes, args.width, args.iterations))
    seconds = time.perf_counter() - start
    coder = load(args.tokenizer)
    rows = []
    for video in videos_of(args.eval, 17):
        frames = video.shape[1]
        whole = torch.cat([video, video[:, -1:].expand(-1, -(frames - 1) % PT, -1, -1)], dim=1)
        parts = []
        for book, part, pt in ((books[0], whole[:, :1], 1), (books[1], whole[:, 1:], PT)):
            drawn = book.through(cut(part, pt))
            h, w = video.shape[2] // PH, video.shape[3] // PW
            parts.append(
                rearrange(drawn, "(t h w) (pt ph pw C) -> C (t pt) (h ph) (w pw)", h=h, w=w, pt=pt, ph=PH, pw=PW, C=3)
            )
        ours = torch.cat(parts, dim=1)[:, :frames].clamp(-1, 1)
        theirs = coder.decode(coder.encode([video]))[0]
        rows.append([10 * np.log10(4 / float((one - video).square().mean())) for one in (ours, theirs)])
    means = np.mean(rows, axis=0)
    values = {
        "codes": args.codes,
        "components": args.width,
        "fit_seconds": round(seconds, 1),
        "patch_codebook_db": round(float(means[0]), 2),
        args.tokenizer: round(float(means[1]), 2),
        "difference_db": round(float(means[1] - means[0]), 2),
        "clips": len(rows),
    }
    print(json.dumps(values, indent=1))
    if args.json:
        args.json.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
