from __future__ import annotations

import pytest
import torch
from torch import nn

from tokenreel.errors import InputError
from tokenreel.train.discriminator_style import StyleDiscriminatorConfig, batch_spread, blur_halve
from tokenreel.train.discriminator_vit import ViTDiscriminatorConfig
from tokenreel.train.discriminators import (
    DISCRIMINATORS,
    DiscriminatorConfig,
    PatchDiscriminatorConfig,
    build_discriminator,
)

CONFIGS: dict[str, DiscriminatorConfig] = {
    "patch2": PatchDiscriminatorConfig(dim=8, depth=2),
    "patch2-spectral": PatchDiscriminatorConfig(dim=8, depth=2, norm="spectral"),
    "patch3": PatchDiscriminatorConfig(dim=8, depth=2, dims=3),
    "patch3-group": PatchDiscriminatorConfig(dim=8, depth=2, dims=3, norm="group"),
    "style2": StyleDiscriminatorConfig(widths=(6, 8, 10), dims=2),
    "style3": StyleDiscriminatorConfig(widths=(6, 8, 10), dims=3),
    "vit": ViTDiscriminatorConfig(patch_size=(2, 4, 4), dim=16, depth=2, num_heads=2),
}
LOGITS = {  # of (T, H, W) = (5, 17, 13)
    "patch2": (5, 5, 4),
    "patch2-spectral": (5, 5, 4),
    "patch3": (3, 5, 4),
    "patch3-group": (3, 5, 4),
    "style2": (5,),
    "style3": (2,),
    "vit": (3, 5, 4),
}


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_discriminator(CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_have_their_shape_and_learn(name: str) -> None:
    critic = built(name)
    video = torch.randn(2, 3, 5, 17, 13, requires_grad=True)
    logits = critic(video)
    assert logits.shape == (2, *LOGITS[name])
    logits.square().sum().backward()
    assert video.grad is not None
    assert video.grad.abs().amax((1, 3, 4)).min() > 0  # every frame counts
    for parameter, value in critic.named_parameters():
        assert value.grad is not None, parameter
        assert torch.isfinite(value.grad).all()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", [(1, 16, 16), (1, 1, 1), (2, 3, 5), (7, 9, 1)])
def test_any_size_goes_in(name: str, size: tuple[int, int, int]) -> None:
    logits = built(name)(torch.randn(1, 3, *size))
    assert logits.shape[0] == 1
    assert logits.numel() >= 1
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", [name for name in CONFIGS if "style" not in name])
def test_examples_are_judged_one_by_one(name: str) -> None:
    critic = built(name).eval()
    video = torch.randn(3, 3, 4, 12, 12)
    together = critic(video)
    for index in range(3):
        torch.testing.assert_close(critic(video[index : index + 1])[0], together[index], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["patch2", "patch2-spectral", "style2"])
def test_two_dimensions_judge_frames_one_by_one(name: str) -> None:
    critic = built(name).eval()
    video = torch.randn(2, 3, 4, 12, 12)
    torch.testing.assert_close(critic(video[:, :, 2:3])[:, 0], critic(video)[:, 2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["patch3", "style3", "vit"])
def test_three_dimensions_see_the_order_of_frames(name: str) -> None:
    critic = built(name).eval()
    video = torch.randn(1, 3, 4, 12, 12)
    assert (critic(video).mean() - critic(video[:, :, [0, 2, 1, 3]]).mean()).abs() > 1e-5


def test_a_vit_knows_where_its_tokens_stand() -> None:
    logits_thw = built("vit")(torch.full((1, 3, 4, 8, 8), 0.3))[0].detach()
    for axis in range(3):
        assert logits_thw.diff(dim=axis).abs().min() > 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_none_has_batch_normalisation(name: str) -> None:
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in built(name).modules())


@pytest.mark.parametrize("name", ["patch2", "style3", "vit"])
def test_a_critic_learns_to_tell_sharp_from_blurred(name: str) -> None:
    critic = built(name)
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        real = torch.randn(4, 3, 2, 16, 16, generator=generator).clamp(-1, 1)
        fake = nn.functional.avg_pool3d(real, (1, 3, 3), 1, (0, 1, 1))
        loss = nn.functional.softplus(critic(fake).mean() - critic(real).mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2


def test_spectral_norm_bounds_the_gain() -> None:
    critic = build_discriminator(PatchDiscriminatorConfig(dim=8, depth=2, norm="spectral"))
    for _ in range(30):
        critic(torch.zeros(1, 3, 1, 8, 8))
    for layer in critic.layers:  # type: ignore[union-attr]
        gain = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)  # type: ignore[union-attr, operator]
        assert float(gain) == pytest.approx(1, abs=0.02)


def test_the_blur_is_a_binomial_filter_with_stride_two() -> None:
    x = torch.randn(2, 3, 7, 8)
    kernel = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])) / 16
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    expected = nn.functional.conv2d(padded.flatten(0, 1)[:, None], kernel[None, None], stride=2)[:, 0]
    torch.testing.assert_close(blur_halve(x, 2).flatten(0, 1), expected)
    assert blur_halve(torch.ones(1, 1, 1, 5, 1), 3).shape == (1, 1, 1, 3, 1)
    assert (blur_halve(torch.ones(1, 1, 1, 5, 1), 3) == 1).all()


def test_the_spread_is_that_of_the_batch() -> None:
    x = torch.randn(4, 3, 2, 5, 6)
    spread = batch_spread(x)
    assert spread.shape == (4, 1, 2, 5, 6)
    for t in range(2):
        expected = x[:, :, t].numpy().std(axis=0).mean()
        assert spread[3, 0, t, 4, 5] == pytest.approx(float(expected), rel=1e-5)
    alone = torch.randn(1, 3, 2, 5, 6, requires_grad=True)
    batch_spread(alone).sum().backward()
    assert alone.grad is not None
    assert torch.isfinite(alone.grad).all()


def test_bad_configs_are_refused() -> None:
    for kind, fields in (
        (PatchDiscriminatorConfig, {"norm": "batch"}),
        (PatchDiscriminatorConfig, {"dims": 4}),
        (PatchDiscriminatorConfig, {"norm": "group", "dim": 12}),
        (PatchDiscriminatorConfig, {"depth": 0}),
        (StyleDiscriminatorConfig, {"widths": ()}),
        (StyleDiscriminatorConfig, {"dims": 1}),
        (ViTDiscriminatorConfig, {"patch_size": (0, 4, 4)}),
        (ViTDiscriminatorConfig, {"dim": 7}),
        (ViTDiscriminatorConfig, {"num_heads": 0}),
    ):
        with pytest.raises(InputError):
            kind(**fields)
    with pytest.raises(InputError, match="built from one of PatchDiscriminatorConfig"):
        build_discriminator("patch")  # type: ignore[arg-type]
    assert len(DISCRIMINATORS) == 3
