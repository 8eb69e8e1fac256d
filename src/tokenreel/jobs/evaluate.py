"""A folder of clips and a tokenizer to figures, and to a page that shows them.

Letters: C channels, T frames, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tokenreel.data.collection import Collection, Subset
from tokenreel.data.opening import open_collection
from tokenreel.errors import InputError
from tokenreel.measure.codecs import CodecCurve, CodecMeter
from tokenreel.measure.evaluate import Evaluator, Perceptual
from tokenreel.measure.features import parse_features
from tokenreel.measure.protocol import Protocol
from tokenreel.measure.scores import ClipScore, Scores
from tokenreel.tokenizers import Tokenizer, load

from .progress import Progress, silent
from .report import write_report
from .report_gallery import Gallery

if TYPE_CHECKING:
    from tokenreel.tokenizers.learned import Precision

__all__ = ["Evaluation", "evaluate_clips", "lpips_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The figures of a tokenizer on some clips, codecs on the same clips, and where the page was written."""

    scores: Scores
    curves: tuple[CodecCurve, ...]
    sources: tuple[str, ...]
    split: str
    token_count: int | None
    report: Path | None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; ``codecs_at_these_bits`` is None where a codec cannot be had at so few or so many bits."""
        values = self.scores.as_json()
        values["protocol"] |= {
            "token_count": self.token_count,
            "split": self.split,
            "sources": list(self.sources),
            "clips": len(self.scores.clips),
        }
        bits = self.scores.bits_per_pixel
        return {
            **values,
            "codecs": [curve.as_json() for curve in self.curves],
            "codecs_at_these_bits": {
                curve.name: {"psnr_db": curve.at(bits), "ssim": curve.at(bits, "ssim")} for curve in self.curves
            },
            "report": None if self.report is None else str(self.report),
        }


def evaluate_clips(
    sources: Sequence[str | os.PathLike[str]],
    *,
    tokenizer: str | Tokenizer = "raw",
    protocol: Protocol | None = None,
    token_count: int | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
    split: str = "all",
    num_clips: int | None = None,
    features: Sequence[str] = (),
    codecs: Sequence[str] = (),
    lpips: Sequence[str | os.PathLike[str]] = (),
    report: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measure a tokenizer on the clips of these sources; a broken clip is skipped, named and counted.

    Args:
        sources: what ``open_collection`` opens: files, folders, tables, tars; pictures count as clips of one frame.
        token_count: ids a frame or clip, for tokenizers that leave the choice.
        device, precision: of a learned tokenizer that is given by name.
        num_clips: only the first this many.
        features: ``rfid=FILE``, ``rfvd=FILE``, ``jedi=FILE``: distances by a TorchScript feature extractor.
        codecs: names in ``CODECS`` that are measured on the same clips.
        lpips: safetensors files with the weights of LPIPS (``tokenreel.train.lpips``); not measured without.
        report: a ``.html`` file to write.

    Raises:
        InputError: a source cannot be opened, all clips are broken, or an option is wrong.
    """
    protocol = protocol or Protocol()
    if report is not None and Path(report).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the report is a page and must end in .html, got {os.fspath(report)}")
    coder = load(tokenizer, device=device, precision=precision) if isinstance(tokenizer, str) else tokenizer
    clips = _clips(sources, split, num_clips)
    extractors = [parse_features(text, is_video=protocol.frames != 1) for text in features]
    watcher = _Watcher(CodecMeter(codecs), Gallery() if report is not None else None)
    evaluator = Evaluator(
        clips,
        protocol=protocol,
        token_count=token_count,
        perceptual=lpips_of(lpips) if lpips else None,
        features=extractors,
        progress=progress,
        watch=watcher,
    )
    scores = evaluator.measure(coder)
    curves = tuple(watcher.meter.curves())
    path = None
    if watcher.gallery is not None and report is not None:
        name = clips.name if split == "all" else f"{clips.name}, split {split}"
        path = write_report(report, scores, curves, watcher.gallery, source=name)
    return Evaluation(
        scores=scores,
        curves=curves,
        sources=tuple(os.fspath(source) for source in sources),
        split=split,
        token_count=token_count,
        report=path,
    )


def lpips_of(files: Sequence[str | os.PathLike[str]]) -> Perceptual:
    """LPIPS of two videos (C, T, H, W) in [-1, 1], the mean over frames; one frame at a time, which bounds memory.

    Raises:
        InputError: there is no such file. FormatError: it does not hold the weights.
    """
    from tokenreel.train.lpips import load_lpips

    network = load_lpips([os.fspath(file) for file in files])

    @torch.no_grad()
    def distance(a_CTHW: Tensor, b_CTHW: Tensor) -> float:
        total = 0.0
        for a, b in zip(a_CTHW.unbind(1), b_CTHW.unbind(1)):
            pairs = list(zip(network(a[None, :, None]), network(b[None, :, None])))
            total += float(network.loss(pairs, None))
        return total / a_CTHW.shape[1]

    return distance


class _Watcher:
    """What else is done with each clip while it is in memory."""

    def __init__(self, meter: CodecMeter, gallery: Gallery | None) -> None:
        self.meter, self.gallery = meter, gallery

    def __call__(self, row: ClipScore, frames_THWC: npt.NDArray[np.uint8], decoded_CTHW: Tensor) -> None:
        self.meter.add(frames_THWC)
        if self.gallery is not None:
            self.gallery.add(row, frames_THWC, decoded_CTHW)


def _clips(sources: Sequence[str | os.PathLike[str]], split: str, num_clips: int | None) -> Collection:
    if num_clips is not None and num_clips < 1:
        raise InputError(f"the number of clips must be at least 1, got {num_clips}")
    found = open_collection(sources[0] if len(sources) == 1 else list(sources), split=split)
    if num_clips is None or num_clips >= len(found):
        return found
    return Subset(found, np.arange(num_clips), name=f"the first {num_clips} of {found.name}")
