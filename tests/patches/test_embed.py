from __future__ import annotations

import numpy as np
import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.patches.embed import PatchEmbed, TubeletEmbed, uniform_frames
from tokenreel.patches.project import LinearProjection


def test_the_matrix_product_is_the_convolution() -> None:
    torch.manual_seed(0)
    embed = TubeletEmbed(in_channels=3, dim=10, patch_size=(2, 4, 4))
    video = torch.randn(2, 3, 4, 8, 12)
    conv = torch.nn.Conv3d(3, 10, (2, 4, 4), stride=(2, 4, 4))
    with torch.no_grad():
        conv.weight.copy_(embed.proj.weight.view(10, 2, 4, 4, 3).permute(0, 4, 1, 2, 3))
        conv.bias.copy_(embed.proj.bias)
    torch.testing.assert_close(embed(video), conv(video).permute(0, 2, 3, 4, 1), rtol=1e-5, atol=1e-5)


def test_any_size_is_padded_by_its_edge() -> None:
    embed = TubeletEmbed(in_channels=1, dim=4, patch_size=(2, 3, 3))
    video = torch.randn(1, 1, 3, 4, 5)
    padded = torch.nn.functional.pad(video, (0, 1, 0, 2, 0, 1), mode="replicate")
    assert embed(video).shape == (1, 2, 2, 2, 4)
    assert torch.equal(embed(video), embed(padded))


def test_patch_embed_keeps_every_frame() -> None:
    embed = PatchEmbed(in_channels=3, dim=8, patch_size=(4, 4))
    assert embed(torch.randn(2, 3, 5, 8, 8)).shape == (2, 5, 2, 2, 8)
    with pytest.raises(InputError, match="an image is a video of T = 1"):
        embed(torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize("how", ["central", "average"])
def test_tubelets_started_from_an_image_model_agree_with_it_on_still_video(how: str) -> None:
    image = PatchEmbed(in_channels=3, dim=8, patch_size=(4, 4))
    tubelet = TubeletEmbed(in_channels=3, dim=8, patch_size=(2, 4, 4))
    tubelet.init_from_image(image.proj.weight, image.proj.bias, how=how)  # type: ignore[arg-type]
    still = torch.randn(1, 3, 1, 8, 8).expand(-1, -1, 2, -1, -1)
    torch.testing.assert_close(tubelet(still), image(still[:, :, :1]), rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="shape"):
        tubelet.init_from_image(image.proj.weight[:, :3], image.proj.bias, how="central")
    with pytest.raises(InputError, match="central"):
        tubelet.init_from_image(image.proj.weight, image.proj.bias, how="mean")  # type: ignore[arg-type]


def test_every_parameter_gets_a_gradient() -> None:
    embed = TubeletEmbed(in_channels=3, dim=8, patch_size=(2, 4, 4))
    embed(torch.randn(1, 3, 3, 7, 9)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in embed.parameters())


def test_uniform_frames_takes_the_middle_of_each_part() -> None:
    video = torch.arange(10.0).view(1, 1, 10, 1, 1)
    assert uniform_frames(video, 5).flatten().tolist() == [1, 3, 5, 7, 9]
    assert uniform_frames(video[:, :, :2], 4).flatten().tolist() == [0, 0, 1, 1]
    with pytest.raises(InputError, match="at least 1"):
        uniform_frames(video, 0)


@pytest.mark.parametrize("dim", [768, 800])
def test_a_wide_projection_inverts_to_rounding(dim: int, rng: np.random.Generator) -> None:
    projection = LinearProjection.from_seed(768, dim, seed=3)
    values = rng.uniform(-1, 1, (50, 768)).astype(np.float32)
    assert projection.is_invertible
    np.testing.assert_allclose(projection.invert(projection.embed(values)), values, atol=1e-5)


def test_a_narrow_projection_gives_the_best_guess(rng: np.random.Generator) -> None:
    projection = LinearProjection.from_seed(48, 16, seed=0)
    values = rng.uniform(-1, 1, (20, 48)).astype(np.float32)
    guess = projection.invert(projection.embed(values))
    assert not projection.is_invertible
    lstsq = np.linalg.lstsq(projection.weight_DP.astype(np.float64), projection.embed(values).T, rcond=None)[0].T
    np.testing.assert_allclose(guess, lstsq, atol=1e-5)
    same = LinearProjection.from_seed(48, 16, seed=0)
    np.testing.assert_array_equal(same.weight_DP, projection.weight_DP)
    assert not np.array_equal(LinearProjection.from_seed(48, 16, seed=1).weight_DP, projection.weight_DP)
    with pytest.raises(InputError, match="dim"):
        LinearProjection.from_seed(48, 0, seed=0)
