from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tokenreel.errors import InputError
from tokenreel.train.features import (
    RandomFeatures,
    RandomFeaturesConfig,
    feature_loss,
    feature_pairs,
    gram_loss,
)

SMALL = RandomFeaturesConfig(widths=(6, 8, 5))
DEEP = RandomFeaturesConfig(widths=(6, 8, 5), dims=3)


def video(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_seed_decides_the_weights_and_nothing_is_learned_or_stored() -> None:
    first, again = RandomFeatures(SMALL), RandomFeatures(SMALL)
    other = RandomFeatures(RandomFeaturesConfig(widths=(6, 8, 5), seed=1))
    for name, buffer in first.named_buffers():
        assert torch.equal(buffer, again.get_buffer(name))
        assert not torch.equal(buffer, other.get_buffer(name))
    assert not list(first.parameters())
    assert not first.state_dict()


def test_the_weights_are_orthogonal() -> None:
    network = RandomFeatures(SMALL)
    rows = network.get_buffer("weight_1").flatten(1)
    gain = 2 / (1 + 0.2**2)
    torch.testing.assert_close(rows @ rows.t(), gain * torch.eye(8), atol=1e-5, rtol=0)


def test_features_are_those_of_the_plain_convolutions() -> None:
    network, x = RandomFeatures(SMALL), video(2, 3, 3, 9, 7)
    frame = x[1, :, 2]
    for scale, features in enumerate(network(x)):
        weight, bias = network.get_buffer(f"weight_{scale}"), network.get_buffer(f"bias_{scale}")
        frame = F.leaky_relu(F.conv2d(frame, weight, bias, stride=1 if scale == 0 else 2, padding=1), 0.2)
        expected = frame / torch.sqrt((frame**2).sum(0) + 0.01 * len(frame))
        torch.testing.assert_close(features[1, :, 2], expected)


@pytest.mark.parametrize("config", [SMALL, DEEP])
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 9, 7), (2, 16, 1)])
def test_any_size_goes_in_and_lengths_stay_below_one(config: RandomFeaturesConfig, size: tuple[int, int, int]) -> None:
    for features in RandomFeatures(config)(video(2, 3, *size)):
        length = features.square().sum(1)
        assert length.max() < 1
        assert length.min() > 0


def test_frames_are_told_apart_in_time_by_three_dimensions_only() -> None:
    x = video(1, 3, 6, 12, 12)
    turned = x.flip(2)
    for config, is_equal in ((SMALL, True), (DEEP, False)):
        ours, theirs = RandomFeatures(config)(x), RandomFeatures(config)(turned)
        assert all(torch.allclose(a.mean(2), b.mean(2), atol=1e-6) for a, b in zip(ours, theirs)) is is_equal


def test_losses_are_their_formulas() -> None:
    ours, theirs = torch.randn(2, 2, 4, 3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(feature_loss([(ours, theirs)], None), 2 * (ours - theirs).abs().mean())
    total = 0.0
    for b in range(2):
        for t in range(3):
            f, g = ours[b, :, t].reshape(4, 30), theirs[b, :, t].reshape(4, 30)
            total += float(((f @ f.T - g @ g.T) / 30).square().sum())
    assert gram_loss([(ours, theirs)], None) == pytest.approx(total / 6)
    twice = feature_loss([(ours, theirs), (ours, ours)], None)
    torch.testing.assert_close(twice, (ours - theirs).abs().mean())


def test_gram_forgets_places_and_the_feature_loss_does_not() -> None:
    ours = F.normalize(video(1, 8, 1, 6, 6), dim=1)
    moved = ours.roll(2, dims=-1)
    assert gram_loss([(moved, ours)], None) < 1e-10
    assert feature_loss([(moved, ours)], None) > 0.1


@pytest.mark.parametrize("config", [SMALL, DEEP])
def test_losses_grow_with_the_distortion(config: RandomFeaturesConfig) -> None:
    network, x = RandomFeatures(config), video(1, 3, 5, 24, 24)
    noise = video(1, 3, 5, 24, 24, seed=1)
    for loss in (feature_loss, gram_loss):
        values = [float(loss(feature_pairs(network, x + scale * noise, x), None)) for scale in (0, 0.05, 0.2, 0.8)]
        assert values[0] == 0
        assert values == sorted(values)
        assert values[1] > 0


def test_frames_that_are_not_valid_do_not_count() -> None:
    network, x = RandomFeatures(SMALL), video(2, 3, 4, 8, 8)
    y = video(2, 3, 4, 8, 8, seed=1)
    valid = torch.tensor([[True, True, False, False], [True, True, False, False]])
    for loss in (feature_loss, gram_loss):
        masked = loss(feature_pairs(network, x, y), valid)
        torch.testing.assert_close(masked, loss(feature_pairs(network, x[:, :, :2], y[:, :, :2]), None))


def test_gradients_are_those_of_finite_differences() -> None:
    network, y = RandomFeatures(RandomFeaturesConfig(widths=(3, 4))), video(1, 3, 1, 4, 4, seed=1).double()
    x = video(1, 3, 1, 4, 4).double().requires_grad_()

    def both(x: torch.Tensor) -> torch.Tensor:
        pairs = feature_pairs(network, x, y)
        return feature_loss(pairs, None) + gram_loss(pairs, None)

    assert torch.autograd.gradcheck(both, (x,), eps=1e-7)


def test_no_gradient_goes_to_the_target() -> None:
    x, y = video(1, 3, 1, 8, 8).requires_grad_(), video(1, 3, 1, 8, 8, seed=1).requires_grad_()
    feature_loss(feature_pairs(RandomFeatures(SMALL), x, y), None).backward()
    assert x.grad is not None
    assert y.grad is None


def test_bad_configs_and_channels_are_refused() -> None:
    for fields in ({"widths": ()}, {"widths": (0,)}, {"dims": 1}, {"in_channels": 0}, {"seed": -1}):
        with pytest.raises(InputError, match="RandomFeaturesConfig"):
            RandomFeaturesConfig(**fields)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="read 3 channels, got 1"):
        RandomFeatures(SMALL)(video(1, 1, 1, 8, 8))
