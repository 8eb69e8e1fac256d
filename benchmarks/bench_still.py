"""What rows of tokens are worth: beside the best still picture that the same bits can buy, at every token count.

    python benchmarks/bench_still.py --tokenizer video-titok CLIPS --size 128 --counts 64 128 256 512
    python benchmarks/bench_still.py --tokenizer image-titok PICTURES --frames 1 --size 256 --counts 8 16 32 64 128

The still is a thumbnail of the mean frame, enlarged: the best of all sides, of RGB and of luma with chroma at a half
and a quarter of the side, of bilinear and bicubic, with as many levels as the bits allow (also between powers of two).
It is chosen on the very clips that are measured, which is in its favour. PSNR from each clip's squared error, mean over
clips; of differences between neighbouring frames likewise (a still has those of the clip itself as its error).
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.data.opening import open_collection
from tokenreel.measure.protocol import Protocol
from tokenreel.media.pixels import to_video
from tokenreel.tokenizers import load

LUMA = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def psnr(decoded_NCTHW: Tensor, videos_NCTHW: Tensor) -> float:
    """Mean over clips, in dB; videos are in [-1, 1]."""
    errors_N = (decoded_NCTHW.clamp(-1, 1) - videos_NCTHW).square().flatten(1).mean(1)
    return float((10 * torch.log10(4 / errors_N)).mean())


def temporal_psnr(decoded_NCTHW: Tensor, videos_NCTHW: Tensor) -> float:
    """PSNR of the differences between neighbouring frames."""
    errors_N = (decoded_NCTHW.diff(dim=2) - videos_NCTHW.diff(dim=2)).square().flatten(1).mean(1)
    return float((10 * torch.log10(4 / errors_N)).mean())


def rounded(values: Tensor, levels: float, half: float) -> Tensor:
    """To ``levels`` values in [-half, half]."""
    steps = levels - 1
    return ((values / half + 1) / 2 * steps).round().clamp(0, round(steps)) / steps * 2 * half - half


def thumbnail(still_NCHW: Tensor, side: int, chroma: int, levels: float, mode: str) -> Tensor:
    """Through a picture of ``side`` pixels with chroma of ``chroma``; 0: RGB."""

    def through(part: Tensor, to: int, half: float) -> Tensor:
        small = rounded(F.interpolate(part, size=(to, to), mode="area"), levels, half)
        return F.interpolate(small, size=part.shape[-2:], mode=mode, align_corners=False)

    if not chroma:
        return through(still_NCHW, side, 1.0)
    ycc = torch.einsum("ij,njhw->nihw", LUMA, still_NCHW)
    again = torch.cat([through(ycc[:, :1], side, 1.0), through(ycc[:, 1:], chroma, 0.5)], dim=1)
    return torch.einsum("ij,njhw->nihw", torch.linalg.inv(LUMA), again)


def best_still(videos_NCTHW: Tensor, bits: float) -> tuple[float, str]:
    """PSNR of the best still picture of so many bits, and what it is."""
    mean_NCHW, best = videos_NCTHW.mean(2), (-math.inf, "")
    for side in range(1, 65):
        for name, chroma in (
            ("RGB", 0),
            ("YCC 4:2:0", max(1, round(side / 2))),
            ("YCC 4:1:0", max(1, round(side / 4))),
        ):
            each = bits / (side * side + 2 * chroma * chroma if chroma else 3 * side * side)
            if not 1 <= each <= 8:
                continue
            for mode in ("bicubic", "bilinear"):
                still = thumbnail(mean_NCHW, side, chroma, 2**each, mode)
                found = psnr(still[:, :, None].expand_as(videos_NCTHW), videos_NCTHW)
                best = max(best, (found, f"{name}, {side}x{side}, {each:.2f} bits a number, {mode}"))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="folder of clips or pictures")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--counts", type=int, nargs="+", required=True)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    protocol, tokenizer, found = (
        Protocol(frames=args.frames, size=args.size),
        load(args.tokenizer),
        open_collection(args.path),
    )
    videos = torch.stack([to_video(protocol.read(found[index]).frames_THWC) for index in range(len(found))])
    print(f"{len(videos)} clips: {protocol.sentence()}")
    no_motion = temporal_psnr(videos[:, :, :1].expand_as(videos), videos) if args.frames > 1 else None
    rows = []
    for count in args.counts:
        decoded = torch.stack(tokenizer.decode(tokenizer.encode(list(videos), token_counts=count)))
        bits = count * math.log2(tokenizer.codebook_size)
        still, what = best_still(videos, bits)
        row = {"tokens": count, "bits": round(bits), "psnr_db": psnr(decoded, videos), "still_db": still, "still": what}
        if no_motion is not None:
            row |= {"temporal_psnr_db": temporal_psnr(decoded, videos), "still_temporal_psnr_db": no_motion}
        rows.append(row)
        print("  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    if args.out:
        args.out.write_text(
            json.dumps({"protocol": protocol.as_json(), "tokenizer": args.tokenizer, "rows": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
