from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.generate import loss_head
from tokenreel.generate.loss import accuracies, critic_loss, critic_scores, guesses_of, masked_cross_entropy, picked
from tokenreel.generate.loss_head import head_cross_entropy, head_logits

torch.set_num_threads(1)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_that_of_numpy_summed_over_factors(smoothing: float) -> None:
    logits = [drawn(6, 5), drawn(6, 3, seed=1)]
    digits = torch.tensor([[0, 2], [4, 0], [1, 1], [2, 2], [3, 0], [0, 1]])
    wanted = 0.0
    for factor, logit in enumerate(logits):
        values = logit.double().numpy()
        log_p = values - np.log(np.exp(values).sum(1, keepdims=True))
        target = np.full_like(log_p, smoothing / values.shape[1])
        target[np.arange(6), digits[:, factor]] += 1 - smoothing
        wanted -= (target * log_p).sum(1).mean()
    found = masked_cross_entropy(logits, digits, label_smoothing=smoothing)
    assert float(found) == pytest.approx(wanted, rel=1e-6)


def test_equal_logits_cost_the_bits_of_the_codebook() -> None:
    logits = (torch.zeros(3, 400), torch.zeros(3, 160))
    assert float(masked_cross_entropy(logits, torch.zeros(3, 2, dtype=torch.int64))) == pytest.approx(math.log(64_000))


def test_only_masked_real_positions_count() -> None:
    values = torch.arange(8).view(2, 4)
    is_masked = torch.tensor([[True, False, True, False], [False, True, False, True]])
    assert picked(values, is_masked).tolist() == [0, 2, 5, 7]
    assert picked(values, is_masked, torch.arange(4) < torch.tensor([[4], [2]])).tolist() == [0, 2, 5]


def test_no_position_costs_nothing_and_has_a_gradient_of_zero() -> None:
    logits = drawn(0, 5).requires_grad_()
    loss = masked_cross_entropy([logits], torch.zeros(0, 1, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert accuracies(guesses_of([logits]), torch.zeros(0, 1, dtype=torch.int64)) == {"accuracy": 0}


def test_accuracy_counts_whole_ids_and_digits() -> None:
    logits = (torch.eye(3)[[0, 1, 2, 0]], torch.eye(2)[[0, 1, 1, 0]])
    digits = torch.tensor([[0, 0], [1, 0], [1, 0], [0, 0]])
    found = accuracies(guesses_of(logits), digits)
    assert float(found["accuracy"]) == 0.5
    assert float(found["factor_accuracy"]) == pytest.approx(5 / 8)
    assert set(accuracies(guesses_of(logits[:1]), digits[:, :1])) == {"accuracy"}


def test_factors_must_agree() -> None:
    with pytest.raises(InputError, match="logits of 2 factors and 3 digits"):
        masked_cross_entropy([drawn(2, 4)] * 2, torch.zeros(2, 3, dtype=torch.int64))


def test_critic_loss_is_that_of_numpy_over_valid_positions() -> None:
    scores, labels = drawn(2, 5), drawn(2, 5, seed=1) > 0
    valid = torch.arange(5) < torch.tensor([[5], [3]])
    p = 1 / (1 + np.exp(-scores.double().numpy()))
    terms = -np.where(labels, 3 * np.log(p), np.log(1 - p))
    found = critic_loss(scores, labels, valid_mask=valid, positive_weight=3.0)
    assert float(found) == pytest.approx(terms[valid.numpy()].mean(), rel=1e-6)
    assert float(critic_loss(scores, labels, positive_weight=3.0)) == pytest.approx(terms.mean(), rel=1e-6)
    assert float(critic_loss(scores, labels, valid_mask=torch.zeros(2, 5, dtype=torch.bool))) == 0


def test_critic_scores_count_fakes_found_and_the_rest_left_alone() -> None:
    scores = torch.tensor([[1.0, -1.0, 2.0, -3.0, 9.0]])
    labels = torch.tensor([[True, True, False, False, True]])
    valid = torch.tensor([[True, True, True, True, False]])
    found = {name: float(value) for name, value in critic_scores(scores, labels, valid_mask=valid).items()}
    assert found == {"fake_share": 0.5, "recall": 0.5, "specificity": 0.5}


# The output layer and the loss as one.


def head_case(dtype: torch.dtype = torch.float32) -> tuple[list[torch.Tensor], torch.Tensor, tuple[int, ...]]:
    tensors = [drawn(11, 6), drawn(8, 6, seed=1), drawn(8, seed=2)]
    digits = torch.stack([torch.arange(11) % 5, torch.arange(11) % 3], -1)
    return [tensor.to(dtype).requires_grad_() for tensor in tensors], digits, (5, 3)


def plain(tensors: list[torch.Tensor], digits: torch.Tensor, levels: tuple[int, ...], smoothing: float) -> torch.Tensor:
    features, weight, bias = tensors
    logits = (features @ weight.T + bias).split(levels, -1)
    return sum(torch.nn.functional.cross_entropy(x, y, label_smoothing=smoothing) for x, y in zip(logits, digits.T))  # type: ignore[return-value]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("at_once", [1, 17, 1 << 24])
@pytest.mark.parametrize("scale", [1.0, -0.3])
@pytest.mark.parametrize("columns", [2, 4096])
def test_fused_loss_and_gradients_are_those_of_torch(
    smoothing: float, at_once: int, scale: float, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_head, "_LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(loss_head, "_COLUMNS", columns)
    monkeypatch.setattr(loss_head, "_COLUMNS_BACK", columns)
    tensors, digits, levels = head_case(torch.float64)
    wanted = plain(tensors, digits, levels, smoothing)
    wanted_gradients = torch.autograd.grad(wanted * scale, tensors)
    found = head_cross_entropy(*tensors, digits, levels=levels, label_smoothing=smoothing)
    torch.testing.assert_close(found.loss, wanted)
    (found.loss * scale).backward()
    for tensor, gradient in zip(tensors, wanted_gradients):
        torch.testing.assert_close(tensor.grad, gradient)
    logits = (tensors[0] @ tensors[1].T + tensors[2]).split(levels, -1)
    assert torch.equal(found.guesses_NF, guesses_of(logits))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("at_once", [17, 1 << 24])
def test_tokens_may_weigh_differently(smoothing: float, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_head, "_LOGITS_AT_ONCE", at_once)
    tensors, digits, levels = head_case(torch.float64)
    weights = drawn(11, seed=5).double()
    logits = (tensors[0] @ tensors[1].T + tensors[2]).split(levels, -1)
    terms = [
        torch.nn.functional.cross_entropy(x, y, label_smoothing=smoothing, reduction="none")
        for x, y in zip(logits, digits.T)
    ]
    wanted = (weights * sum(terms)).mean()
    gradients = torch.autograd.grad(wanted, tensors)
    found = head_cross_entropy(*tensors, digits, levels=levels, label_smoothing=smoothing, weights_N=weights)
    torch.testing.assert_close(found.loss, wanted)
    found.loss.backward()
    for tensor, gradient in zip(tensors, gradients):
        torch.testing.assert_close(tensor.grad, gradient)
    with pytest.raises(InputError, match="a weight for each of 11 tokens"):
        head_cross_entropy(*tensors, digits, levels=levels, weights_N=weights[:3])


def test_fused_loss_of_large_logits_is_finite_and_follows_autocast() -> None:
    tensors, digits, levels = head_case()
    far = [tensors[0] * 1e3, *tensors[1:]]
    torch.testing.assert_close(head_cross_entropy(*far, digits, levels=levels).loss, plain(far, digits, levels, 0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = head_cross_entropy(*tensors, digits, levels=levels).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain(tensors, digits, levels, 0), rtol=2e-2, atol=2e-2)
    loss.backward()
    for tensor, gradient in zip(tensors, torch.autograd.grad(plain(tensors, digits, levels, 0), tensors)):
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, gradient, rtol=0, atol=2e-2)


def test_fused_loss_is_differentiated_once_and_takes_nothing() -> None:
    tensors, digits, levels = head_case()
    loss = head_cross_entropy(*tensors, digits, levels=levels).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        loss.backward()
    none = head_cross_entropy(tensors[0][:0], *tensors[1:], digits[:0], levels=levels)
    assert none.loss.item() == 0
    none.loss.backward()
    with pytest.raises(InputError, match=r"digits of shape \(11, 2\)"):
        head_cross_entropy(*tensors, digits[:, :1], levels=levels)
    with torch.no_grad():
        free = head_cross_entropy(*tensors, digits, levels=levels).loss
    assert not free.requires_grad
    assert free.item() == pytest.approx(loss.item())


@pytest.mark.parametrize("columns", [3, 4096])
@pytest.mark.parametrize("is_low", [False, True])
def test_logits_in_blocks_are_those_of_a_linear_layer(
    columns: int, is_low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_head, "_COLUMNS", columns)
    tensors, _, _ = head_case()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_low):
        wanted = torch.nn.functional.linear(*tensors).float()
        kept = head_logits(*tensors)  # gradients wanted: torch's own
        with torch.no_grad():
            found = head_logits(*tensors)
    assert kept.requires_grad
    assert torch.equal(kept, wanted)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-2 if is_low else 1e-6, atol=2e-2 if is_low else 1e-6)
