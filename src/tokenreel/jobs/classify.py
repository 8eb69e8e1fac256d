"""Videos, pictures and token files to labels with probabilities, by any classifier.

Letters: K classes of a head.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokenreel.classify import Classifier, load
from tokenreel.classify.logits import HeadLabels
from tokenreel.data.collection import Collection
from tokenreel.data.example import Example
from tokenreel.data.opening import open_collection
from tokenreel.errors import InputError, MismatchError, TokenReelWarning

from .classify_views import Seen, Views, answers, read_example
from .progress import Progress, silent

if TYPE_CHECKING:
    from tokenreel.tokenizers.learned import Precision

__all__ = ["DEFAULT_CLASSIFIER", "Classified", "Prediction", "classifier_of", "classify_files"]

DEFAULT_CLASSIFIER = "vivit-motions"
"""What ``classify`` uses where no model is named."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What a classifier says of one video, picture or token file.

    Attributes:
        source: where it is.
        heads: names and labels.
        probabilities: head -> (K,), the mean over the clips, of sum 1.
        spans: seconds of the first and of the last frame of each clip; None for tokens without times.
        num_frames: of each clip.
    """

    source: str
    heads: HeadLabels
    probabilities: Mapping[str, npt.NDArray[np.float64]]
    spans: tuple[tuple[float, float] | None, ...]
    num_frames: int

    def top(self, head: str | None = None, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest labels of a head, the first one by default, with their probabilities."""
        labels = dict(self.heads)
        name = self.heads[0][0] if head is None else head
        if name not in labels:
            raise InputError(f"there is no head {name!r}; the heads are {', '.join(labels)}")
        probs_K = self.probabilities[name]
        order = np.argsort(-probs_K, kind="stable")[:count]
        return [(labels[name][index], float(probs_K[index])) for index in order.tolist()]

    def label(self, head: str | None = None) -> str:
        """The likeliest label of a head, the first one by default."""
        return self.top(head, 1)[0][0]

    def as_json(self, top: int = 5) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "source": self.source,
            "clips": len(self.spans),
            "frames": self.num_frames,
            "seconds": [None if span is None else list(span) for span in self.spans],
            "heads": {
                head: {
                    "label": self.label(head),
                    "top": [{"label": label, "probability": share} for label, share in self.top(head, top)],
                }
                for head, _ in self.heads
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classified:
    """What a classifier says of everything it was given.

    Attributes:
        skipped: (source, why) of each file that is broken.
        explanation: where the picture of its attention was written.
    """

    model: str
    fingerprint: str
    views: Views
    predictions: tuple[Prediction, ...]
    skipped: tuple[tuple[str, str], ...]
    explanation: Path | None

    def as_json(self, top: int = 5) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "model": self.model,
            "fingerprint": self.fingerprint,
            "clips": self.views.clips,
            "stride": self.views.stride,
            "fit": self.views.fit,
            "files": [prediction.as_json(top) for prediction in self.predictions],
            "skipped": [{"source": source, "why": why} for source, why in self.skipped],
            "explain": None if self.explanation is None else str(self.explanation),
        }


def classify_files(
    sources: Sequence[str | os.PathLike[str]],
    *,
    model: str | os.PathLike[str] | Classifier | None = None,
    views: Views | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
    explain: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Classified:
    """Labels and probabilities of every file; a broken one among several is skipped, named and counted.

    Args:
        sources: videos, pictures, ``.tokens`` files, folders, or whatever else ``open_collection`` opens.
        model: folder, name or hub id of a classifier; ``DEFAULT_CLASSIFIER`` by default.
        views: which clips of a video; their probabilities are averaged. A token file is read whole.
        device, precision: of a model that is given by name.
        explain: write the attention rollout over the one video here: mp4, gif, webp and what else ``write`` knows.

    Raises:
        InputError: there is no such file or classifier, all files are broken, or an option does not fit.
        MismatchError: the classifier reads tokens and these are pixels, or the other way round, or another tokenizer
            made them.
    """
    classifier = classifier_of(model, device=device, precision=precision)
    views = (views or Views()).of(classifier)
    files = _opened(sources)
    if explain is not None:
        from .classify_explain import check_explainable

        check_explainable(classifier, files, explain)
    skipped: list[tuple[str, str]] = []
    predictions = []
    total = len(files)
    progress(0, total)
    for example, seen, probs in answers(classifier, _readable(files, classifier, views, skipped)):
        predictions.append(_prediction(example, seen, classifier.heads, probs))
        progress(len(predictions) + len(skipped), total)
    if not predictions:
        raise InputError(f"none of the {total} files could be classified; the first: {skipped[0][1]}")
    written = None
    if explain is not None:
        from .classify_explain import write_explanation

        lines = [_line(predictions[0], head) for head in dict(classifier.heads)]
        written = write_explanation(explain, classifier, files[0], views, lines)
    return Classified(
        model=classifier.source or classifier.name,
        fingerprint=classifier.fingerprint,
        views=views,
        predictions=tuple(predictions),
        skipped=tuple(skipped),
        explanation=written,
    )


def classifier_of(
    model: str | os.PathLike[str] | Classifier | None, *, device: str = "cpu", precision: Precision = "fp32"
) -> Classifier:
    """The classifier that is named, or the one that ships.

    Raises:
        InputError: there is none of this name. FormatError: it is no classifier.
    """
    if isinstance(model, Classifier):
        return model
    return load(DEFAULT_CLASSIFIER if model is None else model, device=device, precision=precision)


def _opened(sources: Sequence[str | os.PathLike[str]]) -> Collection:
    if not sources:
        raise InputError("classification needs at least one file or folder, got none")
    if len(sources) == 1:
        return open_collection(sources[0], split="all")
    return open_collection(list(sources), split="all")


def _readable(
    files: Collection, model: Classifier, views: Views, skipped: list[tuple[str, str]]
) -> Iterator[tuple[Example, Seen]]:
    """What can be read; what cannot is told and noted, unless there is nothing else."""
    for index in range(len(files)):
        source = files.key(index)
        try:
            example = files[index]
            source = example.source
            seen = read_example(example, model, views)
        except (InputError, OSError) as error:
            if len(files) == 1 or isinstance(error, MismatchError):
                raise
            skipped.append((source, str(error)))
            warnings.warn(f"skipped: {error}", TokenReelWarning, stacklevel=3)
            continue
        yield example, seen


def _prediction(
    example: Example, seen: Seen, heads: HeadLabels, probs: Mapping[str, npt.NDArray[np.float64]]
) -> Prediction:
    return Prediction(
        source=example.source,
        heads=heads,
        probabilities=probs,
        spans=seen.spans,
        num_frames=seen.num_frames,
    )


def _line(prediction: Prediction, head: str) -> str:
    [(label, share)] = prediction.top(head, 1)
    return f"{head}: {label}, {100 * share:.0f} %"
