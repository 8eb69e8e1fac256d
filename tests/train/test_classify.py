"""The objective of classifiers against plain torch: soft labels, weights of classes, mixup, several heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tokenreel.classify.logits import Heads, Logits
from tokenreel.data.collection import Collection
from tokenreel.data.example import Example
from tokenreel.data.labelled import LabelledSet
from tokenreel.data.payload import ArrayPayload
from tokenreel.errors import InputError
from tokenreel.train.classify import Classify, ClassifyConfig, class_weights
from tokenreel.train.classify_batches import LabelledBatch
from tokenreel.train.classify_clips import ClipInputs

torch.set_num_threads(1)

HEADS = (("shape", ("round", "square", "star")), ("motion", ("still", "left")))


class Means(nn.Module):
    """The mean of each frame through the heads."""

    def __init__(self, frames: int = 4) -> None:
        super().__init__()
        self.out = Heads(dim=frames, heads=HEADS)

    def forward(
        self, video_BCTHW: Tensor, *, frame_counts: object = None, generator: torch.Generator | None = None
    ) -> Logits:
        logits: Logits = self.out(video_BCTHW.mean((1, 3, 4)) * 20)
        return logits


def batch_of(num: int = 6, seed: int = 0) -> LabelledBatch:
    generator = torch.Generator().manual_seed(seed)
    return LabelledBatch(
        inputs=ClipInputs(
            video_BCTHW=torch.rand(num, 1, 4, 2, 2, generator=generator) * 2 - 1, frame_counts=None, num_tokens=8 * num
        ),
        targets={
            "shape": torch.randint(3, (num,), generator=generator),
            "motion": torch.randint(2, (num,), generator=generator),
        },
        num_classes={"shape": 3, "motion": 2},
        sources=tuple(map(str, range(num))),
        index=0,
    )


def generator_of(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_hand(scores_BC: np.ndarray, probs_BC: np.ndarray, weights_C: np.ndarray) -> float:
    """The mean over examples of -sum_c w_c y_c log p_c."""
    shifted = scores_BC - scores_BC.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return float(-(weights_C * probs_BC * logs).sum(1).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_mean_over_heads_of_weighted_soft_cross_entropy(smoothing: float) -> None:
    model, batch = Means(), batch_of()
    weights = {"shape": torch.tensor([0.5, 1.0, 2.0])}
    step = Classify(ClassifyConfig(label_smoothing=smoothing), weights)(model, batch, step=0, generator=generator_of())
    logits = batch.inputs.logits(model, None)
    wanted, right = [], []
    for head, names in HEADS:
        scores, targets = logits[head].detach().double().numpy(), batch.targets[head].numpy()
        probs = np.eye(len(names))[targets] * (1 - smoothing) + smoothing / len(names)
        wanted.append(by_hand(scores, probs, np.array([0.5, 1, 2]) if head == "shape" else np.ones(2)))
        right.append((scores.argmax(1) == targets).mean())
    assert step.loss.item() == pytest.approx(np.mean(wanted), rel=1e-5)
    assert [step.metrics[f"{head}_loss"].item() for head, _ in HEADS] == pytest.approx(wanted, rel=1e-5)
    assert [step.metrics[f"{head}_accuracy"].item() for head, _ in HEADS] == pytest.approx(right)
    assert step.metrics["accuracy"].item() == pytest.approx(np.mean(right))
    assert (step.num_clips, step.num_tokens, step.seen) == (6, 48, None)
    step.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert not any(value.requires_grad for value in step.metrics.values())


def test_one_head_tells_its_accuracy_only() -> None:
    batch = batch_of()
    one = LabelledBatch(
        inputs=batch.inputs,
        targets={"motion": batch.targets["motion"]},
        num_classes={"motion": 2},
        sources=batch.sources,
        index=0,
    )
    step = Classify(ClassifyConfig())(Means(), one, step=0, generator=generator_of())
    assert set(step.metrics) == {"accuracy"}
    assert Classify.critic is None


def test_mixup_draws_from_the_generator_of_the_step_and_mixes_labels_alike() -> None:
    model, batch, objective = Means(), batch_of(), Classify(ClassifyConfig(mixup=0.5))
    first, again, other = (
        objective(model, batch, step=0, generator=generator_of(seed)).loss.item() for seed in (1, 1, 2)
    )
    plain = Classify(ClassifyConfig())(model, batch, step=0, generator=generator_of()).loss.item()
    assert first == again != other
    assert first != plain
    # With one example alone there is nothing to mix with.
    alone = batch_of(1)
    mixed = objective(model, alone, step=0, generator=generator_of()).loss
    assert mixed.item() == pytest.approx(
        Classify(ClassifyConfig())(model, alone, step=0, generator=generator_of()).loss.item()
    )


class Numbers(Collection):
    def __init__(self, num: int) -> None:
        super().__init__("numbers")
        self.num = num

    def __len__(self) -> int:
        return self.num

    def key(self, index: int) -> str:
        return str(index)

    def _example(self, index: int) -> Example:
        payload = ArrayPayload(lambda: np.zeros((1, 2, 2, 1), np.uint8), str(index))
        return Example(key=str(index), source=str(index), payload=payload)

    def _facts(self, index: int) -> dict[str, Any]:
        return {}


def test_weights_of_classes_follow_their_counts() -> None:
    labelled = LabelledSet(Numbers(8), {"label": ("a", "b")}, {"label": [0] * 6 + [1] * 2})
    assert class_weights(labelled, ClassifyConfig()) == {}
    inverse = class_weights(labelled, ClassifyConfig(class_weights="inverse"))["label"]
    assert inverse.tolist() == pytest.approx([8 / 12, 8 / 4])
    none = class_weights(labelled, ClassifyConfig(class_weights="effective", effective_beta=0.0))["label"]
    assert none.tolist() == pytest.approx([1, 1])
    near = class_weights(labelled, ClassifyConfig(class_weights="effective", effective_beta=1 - 1e-9))["label"]
    assert near.tolist() == pytest.approx(inverse.tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing must lie in"),
        ({"mixup": -0.1}, "mixup must be at least 0"),
        ({"class_weights": "all"}, "class_weights must be one of none, inverse, effective"),
        ({"effective_beta": 1.0}, "effective_beta must lie in"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassifyConfig(**fields)  # type: ignore[arg-type]
