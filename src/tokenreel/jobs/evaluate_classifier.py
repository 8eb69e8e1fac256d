"""A labelled source and a classifier to figures a head, with intervals, and to a page that shows them.

Letters: N examples, K classes of a head.
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

from tokenreel.classify import Classifier, ViViT
from tokenreel.data.changed import unchanged
from tokenreel.data.labelled import LabelledSet
from tokenreel.data.labelled_open import open_labelled
from tokenreel.data.labelled_rendered import RENDERED, SCENES_OF, asked_scenes, rendered_set
from tokenreel.data.opening import open_collection
from tokenreel.errors import InputError, MismatchError, TokenReelWarning
from tokenreel.measure.classification_scores import ClassificationScores, head_scores

from .classify import classifier_of
from .classify_views import Seen, Views, answers, read_example
from .progress import Progress, silent

if TYPE_CHECKING:
    from tokenreel.tokenizers.learned import Precision

__all__ = ["ClassifierEvaluation", "evaluate_classifier", "labelled_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierEvaluation:
    """The figures of a classifier on labelled examples, and where the page was written.

    Attributes:
        scores: head -> its figures.
        keys: name of each example that was told, as ``Mistake.index`` counts them.
        by_group: whether intervals draw whole groups.
        skipped: (source, why) of each example that is broken.
    """

    model: str
    fingerprint: str
    source: str
    split: str
    views: Views
    scores: Mapping[str, ClassificationScores]
    keys: tuple[str, ...]
    by_group: bool
    skipped: tuple[tuple[str, str], ...]
    report: Path | None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; a mistake carries the key of its example."""
        heads = {}
        for head, scores in self.scores.items():
            heads[head] = scores.as_json()
            for mistake in heads[head]["confident_mistakes"]:
                mistake["key"] = self.keys[mistake["index"]]
        return {
            "model": self.model,
            "fingerprint": self.fingerprint,
            "source": self.source,
            "split": self.split,
            "clips": self.views.clips,
            "stride": self.views.stride,
            "fit": self.views.fit,
            "examples": len(self.keys),
            "intervals_by_group": self.by_group,
            "heads": heads,
            "skipped": [{"source": source, "why": why} for source, why in self.skipped],
            "report": None if self.report is None else str(self.report),
        }


def evaluate_classifier(
    source: str | os.PathLike[str] | LabelledSet,
    *,
    model: str | os.PathLike[str] | Classifier,
    split: str | None = None,
    head: str | None = None,
    group: str | None = None,
    num_examples: int | None = None,
    views: Views | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
    num_draws: int = 1000,
    report: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> ClassifierEvaluation:
    """Measure a classifier on labelled examples; a broken one is skipped, named and counted.

    Args:
        source: see ``labelled_for``.
        model: folder, name or hub id of a classifier.
        split: which part; must be said where there are several, ``all`` takes all.
        head: which head is asked, where the source has one label and the classifier several heads.
        group: a regular expression on the key whose first bracket is the group, see ``open_labelled``; intervals are
            over groups where every example has one.
        num_examples: only the first so many.
        views: which clips of a video; by default one that spans it, as in training.
        device, precision: of a model that is given by name.
        num_draws: of the bootstrap behind the intervals.
        report: a ``.html`` file to write.

    Raises:
        InputError: the source cannot be opened, all examples are broken, or an option is wrong. MismatchError: labels
            that the classifier does not know, or it reads tokens and these are pixels, or the other way round.
    """
    if report is not None and Path(report).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the report is a page and must end in .html, got {os.fspath(report)}")
    if num_examples is not None and num_examples < 1:
        raise InputError(f"the number of examples must be at least 1, got {num_examples}")
    classifier = classifier_of(model, device=device, precision=precision)
    views = (views or Views(clips=1)).of(classifier)
    labelled, heads = labelled_for(source, classifier, split=split, head=head, group=group)
    if num_examples is not None and num_examples < len(labelled):
        labelled = labelled.take(np.arange(num_examples), name=f"the first {num_examples} of {labelled.name}")
    skipped: list[tuple[str, str]] = []
    probs, numbers = _answered(labelled, classifier, views, skipped, progress)
    targets = {own: _renumbered(labelled, theirs, dict(classifier.heads)[own]) for own, theirs in heads.items()}
    groups = [labelled.groups[number] for number in numbers]
    by_group = None not in groups and len(set(groups)) > 1
    scores = head_scores(
        {own: probs[own] for own in heads},
        {own: targets[own][numbers] for own in heads},
        {own: dict(classifier.heads)[own] for own in heads},
        groups=groups if by_group else None,
        num_draws=num_draws,
    )
    found = ClassifierEvaluation(
        model=classifier.source or classifier.name,
        fingerprint=classifier.fingerprint,
        source=labelled.name,
        split=split or "all",
        views=views,
        scores=scores,
        keys=tuple(labelled.key(number) for number in numbers),
        by_group=by_group,
        skipped=tuple(skipped),
        report=None if report is None else Path(report),
    )
    if report is not None:
        from .report_classifier import write_classifier_report

        write_classifier_report(report, found, labelled.take(numbers))
    return found


def labelled_for(
    source: str | os.PathLike[str] | LabelledSet,
    model: Classifier,
    *,
    split: str | None = None,
    head: str | None = None,
    group: str | None = None,
) -> tuple[LabelledSet, dict[str, str]]:
    """The labelled examples, and for each head of the model that is asked the head of the source.

    Args:
        source: what ``open_labelled`` opens (a folder a class, a table, token shards, an npz of MedMNIST or the name of
            one); ``rendered:COUNT`` or ``rendered:COUNT,FRAMES,HEIGHT,WIDTH``, scenes drawn by the project, of which
            the split ``test`` (the default) shows combinations that training never does; or a set.

    Raises:
        InputError: nothing is there, several splits and none is said, or several heads. MismatchError: no head in
            common.
    """
    own = dict(model.heads)
    if head is not None and head not in own:
        raise InputError(f"this classifier has no head {head!r}; its heads are {', '.join(own)}")
    asked = [head] if head is not None else list(own)
    if not isinstance(source, LabelledSet):
        source = _opened(source, model, asked, split, group, is_said=head is not None)
    elif split not in (None, "all"):
        source = source.part(split)
    source = unchanged(source)
    return source, _matched(source, own, asked)


def _opened(
    source: str | os.PathLike[str],
    model: Classifier,
    asked: Sequence[str],
    split: str | None,
    group: str | None,
    *,
    is_said: bool,
) -> LabelledSet:
    text = os.fspath(source)
    if text.startswith(RENDERED):
        return _rendered(text, model, split)
    own = {name: labels for name, labels in model.heads if name in asked}
    if text.lower().endswith(".npz") or not Path(text).exists() or any(Path(text).glob("*.npz")):
        found = open_labelled(source, group=group)  # of MedMNIST, which has its own classes
    elif len(asked) == 1 and not (is_said and _has_column(text, asked[0])):
        found = open_labelled(source, group=group, classes=list(own[asked[0]]))
    elif len(asked) > 1 and Path(text).is_dir() and _is_by_folder(text):
        raise InputError(
            f"{text} has one label an example, this classifier the heads {', '.join(own)}; say which is asked: --head"
        )
    else:
        found = open_labelled(source, group=group, heads=asked, classes=own)
    there = sorted({name for name in found.splits if name is not None})
    if split is None and len(there) > 1:
        raise InputError(f"{found.name} has the splits {', '.join(there)}: choose one with --split, or --split all")
    return found if split in (None, "all") else found.part(split)


def _has_column(text: str, name: str) -> bool:
    """Whether it is a table, or has records, with this field."""
    facts = next(iter(open_collection(text, split="all")._readable()), {})
    return name in facts.get("meta", {})


def _is_by_folder(text: str) -> bool:
    facts = next(iter(open_collection(text, split="all")._readable()), {})
    return facts.get("label") is not None and not facts.get("meta")


def _rendered(text: str, model: Classifier, split: str | None) -> LabelledSet:
    count, size = asked_scenes(text)
    if split is not None and split not in SCENES_OF:
        raise InputError(f"rendered scenes have the splits {', '.join(SCENES_OF)}, got {split!r}")
    if not isinstance(model, ViViT):
        raise MismatchError(f"rendered scenes are pixels, and a {model.name} reads tokens; encode them first")
    frames, height, width = size or (model.config.num_frames, *model.config.size)
    first, held_out = SCENES_OF[split or "test"]
    return rendered_set(count, first=first, held_out=held_out, num_frames=frames, height=height, width=width)


def _matched(labelled: LabelledSet, own: Mapping[str, Sequence[str]], asked: Sequence[str]) -> dict[str, str]:
    """Head of the model -> head of the source: of the same name, or the only ones of both."""
    same = {name: name for name in asked if name in labelled.heads}
    if same:
        return same
    if len(asked) == 1 and len(labelled.heads) == 1:
        return {asked[0]: next(iter(labelled.heads))}
    raise MismatchError(
        f"{labelled.name} has the heads {', '.join(labelled.heads)}, this classifier {', '.join(own)}; where the "
        "source has one label, say which head is asked: --head"
    )


def _answered(
    labelled: LabelledSet,
    model: Classifier,
    views: Views,
    skipped: list[tuple[str, str]],
    progress: Progress,
) -> tuple[dict[str, npt.NDArray[np.float64]], list[int]]:
    """Head -> (N, K), and the numbers of these examples in the set."""
    total, numbers = len(labelled), []
    rows: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name, _ in model.heads}
    progress(0, total)
    for number, _, probs in answers(model, _readable(labelled, model, views, skipped)):
        numbers.append(number)
        for name, probs_K in probs.items():
            rows[name].append(probs_K)
        progress(len(numbers) + len(skipped), total)
    if not numbers:
        raise InputError(f"none of the {total} examples of {labelled.name} can be read; the first: {skipped[0][1]}")
    return {name: np.stack(found) for name, found in rows.items()}, numbers


def _readable(
    labelled: LabelledSet, model: Classifier, views: Views, skipped: list[tuple[str, str]]
) -> Iterator[tuple[int, Seen]]:
    for number in range(len(labelled)):
        try:
            seen = read_example(labelled[number], model, views)
        except MismatchError:
            raise
        except (InputError, OSError) as error:
            skipped.append((labelled.key(number), str(error)))
            warnings.warn(f"skipped: {error}", TokenReelWarning, stacklevel=3)
            continue
        yield number, seen


def _renumbered(labelled: LabelledSet, head: str, labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """The class numbers of a head as the classifier counts its labels, int64 (N,)."""
    numbers = {label: number for number, label in enumerate(labels)}
    used = labelled.counts(head) > 0
    unknown = [name for name, is_used in zip(labelled.heads[head], used) if is_used and name not in numbers]
    if unknown:
        shown = ", ".join(labels[:12]) + (", ..." if len(labels) > 12 else "")
        raise MismatchError(
            f"{labelled.name} has the {head} {unknown[0]!r}, which this classifier does not know; it tells {shown}"
        )
    table = np.array([numbers.get(name, -1) for name in labelled.heads[head]], np.int64)
    return table[labelled.targets(head)]
