"""What each figure of a report is called, how it is written, and what it means, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tokenreel.measure.codecs import CodecCurve
from tokenreel.measure.scores import Scores

__all__ = ["FIGURES", "bits", "compared", "counted", "level", "plain"]


def level(value: float | None) -> str:
    """A level in dB as people read it."""
    return "none" if value is None else "exact" if math.isinf(value) else f"{value:.2f} dB"


def bits(value: float) -> str:
    """Bits a pixel, three digits that count.

    >>> bits(0.0146484375), bits(24.0)
    ('0.0146', '24')
    """
    return f"{value:.3g}"


def plain(value: float) -> str:
    """A similarity or distance."""
    return f"{value:.4f}"


def share(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f} %"


def counted(number: int, word: str) -> str:
    """A number of things.

    >>> counted(1, "clip"), counted(1200, "clip")
    ('1 clip', '1,200 clips')
    """
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def count(value: float) -> str:
    """A count."""
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


FIGURES: dict[str, tuple[str, Callable[[float], str], str]] = {
    "psnr_db": (
        "PSNR",
        level,
        "How far pixels are off, on average over clips: 10 dB more is a tenth of the squared error. About 25 dB looks "
        "soft, 35 dB looks good, and a decoded clip that is equal to its original is exact.",
    ),
    "ssim": (
        "SSIM",
        plain,
        "How alike edges and textures are in small windows, 1 where equal. It notices blur that PSNR forgives.",
    ),
    "ms_ssim": (
        "MS-SSIM",
        plain,
        "SSIM on the picture and on four smaller copies of it, which follows eyes more closely.",
    ),
    "temporal_psnr_db": (
        "Temporal PSNR",
        level,
        "PSNR of the change from each frame to the next. Flicker and lost motion lower it; a fault that stands still "
        "does not.",
    ),
    "lpips": ("LPIPS", plain, "Distance of the two pictures inside a network that sees; 0 where they are equal."),
    "bits_per_pixel": (
        "Bits a pixel",
        bits,
        "Number of tokens times log2 of the codebook's size, over all pixels: what the ids take, each written at a "
        "fixed length.",
    ),
    "entropy_bits_per_pixel": (
        "Bits a pixel, entropy",
        bits,
        "The same if frequent ids are written shorter, by an ideal code that knows how often each comes here.",
    ),
    "merged_bits_per_pixel": (
        "Bits a pixel, merged",
        bits,
        "The same with byte-pair merges learned on every other clip and counted on the clips between.",
    ),
    "codebook_usage": ("Codebook used", share, "Share of the codebook's ids that came at least once on these clips."),
    "perplexity": (
        "Perplexity",
        count,
        "How many ids are in use, as if all of those were equally frequent: 2 to the power of the entropy.",
    ),
    "entropy_bits": ("Entropy", lambda value: f"{value:.2f} bits", "Information in an id that is seen alone."),
    "rfid": (
        "rFID",
        plain,
        "Frechet distance of the frames' features, originals against decoded ones; lower is better.",
    ),
    "rfvd": ("rFVD", plain, "Frechet distance of the clips' features, motion included; lower is better."),
    "jedi": ("JEDi (MMD x 100)", plain, "Polynomial-kernel distance of the clips' features; lower is better."),
    "encode_frames_per_second": (
        "Encoding",
        lambda value: f"{count(value)} frames/s",
        "On this machine, one clip at a time.",
    ),
    "decode_frames_per_second": (
        "Decoding",
        lambda value: f"{count(value)} frames/s",
        "On this machine, one clip at a time.",
    ),
}
"""Name of a figure: its title, how its value is written, and its meaning."""


def compared(scores: Scores, curves: Sequence[CodecCurve]) -> str:
    """What codecs reach at the tokenizer's bits, as a sentence; empty without codecs."""
    rate, ours = scores.bits_per_pixel, scores.mean(lambda clip: clip.psnr_db)
    reached, fewer, more = [], [], []
    for curve in curves:
        name, value = curve.title.split(" (")[0].split(",")[0], curve.at(rate)
        if value is not None:
            reached.append(f"{name} reaches {level(value)}")
        elif rate < curve.points[0].bits_per_pixel:
            more.append(name)
        else:
            fewer.append(name)
    sentences = []
    if reached:
        sentences.append(f"At these {bits(rate)} bits a pixel {_listed(reached)}; this tokenizer, {level(ours)}.")
    if more:
        sentences.append(f"{_listed(more)} cannot be had at so few bits.")
    if fewer:
        sentences.append(f"{_listed(fewer)} needed fewer bits than this at every quality that was tried.")
    return " ".join(sentences)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
