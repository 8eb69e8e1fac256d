"""The parts of a classifier's run: scores on the validation part, the best weights, the card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from tokenreel.classify.classifier import Classifier
from tokenreel.classify.loading import load
from tokenreel.classify.tokens import TokenViViT
from tokenreel.classify.vivit import ViViT
from tokenreel.data.labelled import LabelledSet
from tokenreel.errors import InputError
from tokenreel.files import whole_file
from tokenreel.measure.classification_scores import ClassificationScores, head_scores
from tokenreel.tokenizers.saved import SavedModel
from tokenreel.train.classify import Classify, class_weights
from tokenreel.train.classify_batches import Kept, LabelledStream, Reader, labelled_batches
from tokenreel.train.classify_clips import ClipReader
from tokenreel.train.classify_codes import CodeReader
from tokenreel.train.recipes_base import Recipe
from tokenreel.train.recipes_classify import ClassifyRecipe
from tokenreel.train.runtime import Runtime
from tokenreel.types import Tokens

from .train_parts import Fixed
from .train_resume import described

__all__ = ["BEST_NAME", "SCORES_NAME", "ClassifyParts", "Examined", "examined"]

BEST_NAME = "best.safetensors"
"""In the folder of a run: the averaged weights that did best so far."""

SCORES_NAME = "scores.json"
"""Beside the exported weights: every figure of every part."""

_SHOWN, _FRAMES = 12, 4  # clips in a picture, frames of each
_LOOKED_AT = 256  # token records among which the longest is looked for


class Examined(NamedTuple):
    """What a classifier says of a labelled set.

    Attributes:
        numbers: of the examples that could be read.
        probs: head -> (N, K).
        scores: head -> its figures.
        loss: mean over heads of the cross-entropy.
    """

    numbers: list[int]
    probs: dict[str, npt.NDArray[np.float64]]
    scores: dict[str, ClassificationScores]
    loss: float

    @property
    def accuracy(self) -> float:
        """The mean over heads."""
        return float(np.mean([one.accuracy for one in self.scores.values()]))

    @property
    def auc(self) -> float | None:
        """The mean over heads; None where a class of any has no example."""
        found = [one.auc for one in self.scores.values() if one.auc is not None]
        return float(np.mean(found)) if len(found) == len(self.scores) else None

    def figures(self) -> dict[str, float]:
        """By name: accuracy, AUC where it exists, loss; of several heads also the accuracy of each."""
        found = {"accuracy": self.accuracy, "loss": self.loss}
        if self.auc is not None:
            found["auc"] = self.auc
        if len(self.scores) > 1:
            found |= {f"{head}_accuracy": one.accuracy for head, one in self.scores.items()}
        return found


def examined(
    model: Classifier, labelled: LabelledSet, reader: Reader, *, batch_size: int, kept: Kept | None = None
) -> Examined:
    """Put every example of a set before a classifier, in eval mode.

    Raises:
        InputError: no example can be read.
    """
    numbers: list[int] = []
    found: dict[str, list[npt.NDArray[np.float64]]] = {head: [] for head in labelled.heads}
    losses: list[float] = []
    for own, batch in labelled_batches(labelled, reader, batch_size=batch_size, kept=kept):
        batch = batch.to(model.device)
        with model.running():
            logits = batch.inputs.logits(model, None)
        numbers += own
        for head, scores_BC in logits.items():
            found[head].append(scores_BC.double().softmax(-1).cpu().numpy())
            losses.append(float(F.cross_entropy(scores_BC.float(), batch.targets[head], reduction="sum")))
    probs = {head: np.concatenate(parts) for head, parts in found.items()}
    targets = {head: labelled.targets(head)[numbers] for head in labelled.heads}
    scores = head_scores(probs, targets, labelled.heads, num_draws=0)
    return Examined(numbers, probs, scores, sum(losses) / len(numbers) / len(probs))


class ClassifyParts:
    """A classifier, its loss, and batches of a labelled source; see ``Parts``.

    Args:
        plan: the recipe.
        runtime: device and processes.
        lpips: not for this objective.
        num_workers: threads that work ahead; None: the recipe's.
    """

    fixed = Fixed(names=("model.family", "model.config"), within=("model.config.",))
    frozen: Sequence[nn.Module] = ()

    def __init__(
        self, plan: Recipe, runtime: Runtime, *, lpips: str | None = None, num_workers: int | None = None
    ) -> None:
        assert isinstance(plan, ClassifyRecipe)
        if lpips is not None:
            raise InputError("--lpips is for recipes of tokenizers; a classifier makes no pictures")
        if plan.loop.parallel == "fsdp" and runtime.world_size > 1:
            raise InputError("loop.parallel=fsdp is not for classifiers: they fit on one device; say loop.parallel=ddp")
        self.plan, self.runtime = plan, runtime
        self.data = plan.data.parts(seed=plan.loop.seed)
        if plan.scores.keep_best and self.data.val is None:
            raise InputError(
                "scores.keep_best needs a validation part; say data.val_share=0.15, or scores.keep_best=false"
            )
        if plan.scores.keep_best and plan.scores.by == "auc" and self.data.val is not None:
            absent = [head for head in self.data.val.heads if not self.data.val.counts(head).all()]
            if absent:
                raise InputError(
                    f"scores.by=auc needs an example of every class in the validation part ({', '.join(absent)}); "
                    "say a larger data.val_share, or scores.by=accuracy or loss"
                )
        heads = tuple(self.data.train.heads.items())
        self.classifier = plan.model.build(heads, tokens=_longest(self.data.train), seed=plan.loop.seed)
        self.model: nn.Module = self.classifier
        self.objective = Classify(plan.loss, class_weights(self.data.train, plan.loss))
        self.stream = LabelledStream(
            self.data.train,
            self._reader(is_random=True),
            plan.data.batches,
            seed=plan.loop.seed,
            rank=runtime.rank,
            world_size=runtime.world_size,
            num_workers=plan.data.num_workers if num_workers is None else num_workers,
        )
        self._kept: Kept | None = None  # what is looked at again and again
        if self.data.val is not None:
            self._kept = Kept(self.data.val, self._reader(is_random=False), plan.data.batches.cache_bytes)
        self._looked: tuple[int, Examined] | None = None

    def about(self) -> Mapping[str, Any]:
        """Family and full configuration, with the labels."""
        return {"family": self.classifier.name, **described(self.classifier.config)}

    def start(self) -> None:
        """InputError where no example of a part that is measured can be read: better now than hours later."""
        for part in (self.data.val, self.data.test):
            if part is not None:
                next(labelled_batches(part, self._reader(is_random=False), batch_size=1))

    def exports(self, model: nn.Module) -> dict[str, SavedModel]:
        """The classifier with the last averaged weights; ``complete`` puts the best ones in where they are wanted."""
        assert isinstance(model, Classifier)
        return {"classifier": model}

    def measured(self, model: nn.Module, step: int, folder: Path) -> Mapping[str, float]:
        """Figures of the validation part; weights that do better than all before are kept in the run's folder."""
        assert isinstance(model, Classifier)
        if self.data.val is None:
            return {}
        found = self._examined(model, self.data.val, kept=self._kept)
        self._looked = (step, found)
        if self.plan.scores.keep_best:
            _keep_if_best(model, found, step, self._about_best(), folder / BEST_NAME)
        return {f"val_{name}": value for name, value in found.figures().items()}

    def complete(self, folder: Path) -> Mapping[str, Any]:
        """The best weights, where they are wanted, the figures of every part, and the card."""
        path = folder / "classifier"
        model = load(path).to(self.runtime.device)
        best = _best(folder / BEST_NAME, self._about_best()) if self.plan.scores.keep_best else None
        if best is not None:
            model.load_state_dict(best.weights)
        half = self.plan.loop.half
        if half:
            model.round_to_half()
        parts = {"val": self.data.val, "test": self.data.test}
        found = {name: self._examined(model, part) for name, part in parts.items() if part is not None}
        figures = {name: one.figures() for name, one in found.items()}
        model.save_pretrained(path, half=half, card=model.card(model.fingerprint) + self._card(found, best))
        told = {
            "recipe": self.plan.name,
            "step": None if best is None else best.step,
            "examples": {name: len(part) for name, part in self.data._asdict().items() if part is not None},
            "parts": {name: [one.as_json() for one in each.scores.values()] for name, each in found.items()},
        }
        with whole_file(path / SCORES_NAME) as file:
            file.write_text(json.dumps(told, indent=1) + "\n")
        return {"scores": figures}

    def picture(self, model: nn.Module, step: int) -> Any:
        """Clips of the validation part with what is said of them, the most confident mistakes first."""
        from tokenreel.jobs.sheet import contact_sheet

        assert isinstance(model, Classifier)
        if self._looked is None or self._looked[0] != step or self.data.val is None or self._kept is None:
            return None
        labelled, found = self.data.val, self._looked[1]
        strips, names = [], []
        for at in _worst(labelled, found)[:_SHOWN]:
            number = found.numbers[at]
            item = self._kept.item(number)
            strips.append(self._reader(is_random=False).shown(item, _FRAMES))
            names.append(_said(labelled, found, at))
        return contact_sheet(strips, names, columns=3, width=1400)

    def _reader(self, *, is_random: bool) -> ClipReader | CodeReader:
        model, data = self.classifier, self.plan.data
        if isinstance(model, TokenViViT):
            return CodeReader(model, data.codes, is_random=is_random)
        assert isinstance(model, ViViT)
        return ClipReader(model.config, data.clips, is_random=is_random)

    def _examined(self, model: Classifier, labelled: LabelledSet, *, kept: Kept | None = None) -> Examined:
        reader = self._reader(is_random=False)
        return examined(model, labelled, reader, batch_size=self.plan.scores.batch_size, kept=kept)

    def _about_best(self) -> dict[str, str]:
        """What weights were chosen by and from: others are not compared with."""
        val = [] if self.data.val is None else [self.data.val.key(number) for number in range(len(self.data.val))]
        told = {"train": self.stream.identity(), "val": val}
        return {"by": self.plan.scores.by, "of": f"{crc32(json.dumps(told, sort_keys=True).encode()):08x}"}

    def _card(self, found: Mapping[str, Examined], best: _Best | None) -> str:
        """What was trained how, on what, and how well it tells."""
        plan, data = self.plan, self.data
        source = Path(plan.data.sources[0].data).name
        counts = ", ".join(f"{len(part):,} {name}" for name, part in data._asdict().items() if part is not None)
        held = "" if plan.data.hold_out is None else f"; held out: {_joined(plan.data.hold_out)}"
        rows = {
            "recipe": f"{plan.name}, {plan.loop.steps:,} steps of {plan.data.batches.batch_size}, "
            f"seed {plan.loop.seed}",
            "data": f"`{source}`: {counts}{held}",
        }
        if best is not None:
            rows["weights"] = f"averages of step {best.step:,}, the best {plan.scores.by} on validation"
        for name, one in found.items():
            rows[name] = "; ".join(
                f"{head}: {100 * score.accuracy:.2f} % right"
                + ("" if score.auc is None else f", AUC {score.auc:.4f}")
                + f" ({score.num_mistakes} of {score.num_examples} wrong)"
                for head, score in one.scores.items()
            )
        table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
        return f"\n## Training\n\n| | |\n|---|---|\n{table}\n"


class _Best(NamedTuple):
    weights: dict[str, torch.Tensor]
    step: int
    score: float


def _score(found: Examined, by: str) -> float:
    """Higher is better."""
    if by == "loss":
        return -found.loss
    if by == "accuracy":
        return found.accuracy
    if found.auc is None:
        raise InputError("scores.by=auc needs an example of every class in the validation part; say accuracy or loss")
    return found.auc


def _best(path: Path, wanted: Mapping[str, str]) -> _Best | None:
    """The weights kept so far; None where there are none, or where others were compared otherwise."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        if any(about.get(name) != value for name, value in wanted.items()):
            return None
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    return _Best(weights, int(about["step"]), float(about["score"]))


def _keep_if_best(model: Classifier, found: Examined, step: int, about: Mapping[str, str], path: Path) -> None:
    """Of equals the later one stays: its average has seen more."""
    from safetensors.torch import save_file

    score, before = _score(found, about["by"]), _best(path, about)
    if before is not None and before.score > score:
        return
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with whole_file(path) as file:
        save_file(weights, file, metadata={**about, "step": str(step), "score": repr(score)})


def _longest(labelled: LabelledSet) -> Tokens | None:
    """The record with most steps among some, or None if the set holds pixels.

    Raises:
        InputError: no record that was tried can be read.
    """
    if labelled[0].kind != "tokens":
        return None
    found: Tokens | None = None
    reason = ""
    for number in np.unique(np.linspace(0, len(labelled) - 1, min(_LOOKED_AT, len(labelled))).round().astype(int)):
        try:
            tokens = labelled[int(number)].tokens()
        except (InputError, OSError) as error:
            reason = str(error)
            continue
        if found is None or (tokens.grid.t, tokens.num_tokens) > (found.grid.t, found.num_tokens):
            found = tokens
    if found is None:
        raise InputError(f"no record of {labelled.name} can be read; the last: {reason}")
    return found


def _worst(labelled: LabelledSet, found: Examined) -> list[int]:
    """Places: mistakes of any head, the most confident first, then the others in order."""
    confidence = np.zeros(len(found.numbers))
    for head, probs_NK in found.probs.items():
        wrong = probs_NK.argmax(1) != labelled.targets(head)[found.numbers]
        confidence = np.maximum(confidence, np.where(wrong, probs_NK.max(1), 0))
    return [int(at) for at in np.argsort(-confidence, kind="stable")]


def _said(labelled: LabelledSet, found: Examined, at: int) -> str:
    """The labels, and in brackets those that were told wrong."""
    words = []
    for head, names in labelled.heads.items():
        told, true = int(found.probs[head][at].argmax()), int(labelled.targets(head)[found.numbers[at]])
        words.append(names[true] if told == true else f"{names[true]} (not {names[told]})")
    text = " ".join(words)
    return text if len(text) <= 60 else text[:57] + "..."


def _joined(groups: str | Sequence[str]) -> str:
    return groups if isinstance(groups, str) else ", ".join(groups)
