"""The four models beside plain references that know nothing of folds: full scores, and a mask for each head."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.classify import ViViT, ViViTConfig
from tokenreel.classify.folds import Fold, GridPositions, masked_mean
from tokenreel.classify.vivit_blocks import DividedBlock, FactorisedBlock
from tokenreel.classify.vivit_encoders import FactorisedEncoder, FoldedEncoder, SpatioTemporalEncoder
from tokenreel.nn.heads import Attention
from tokenreel.tokenizers.configs import Stack

torch.set_num_threads(1)

GRID = (3, 2, 4)
BASE = ViViTConfig(
    model="spatio_temporal",
    num_frames=6,
    size=(8, 16),
    in_channels=1,
    patch_size=(2, 4, 4),
    encoder=Stack(dim=16, depth=2, num_heads=4, head_dim=4, mlp_dim=24),
    pooling="class_token",
    heads=(("label", ("a", "b", "c")),),
)


def model_of(**change: object) -> ViViT:
    model = ViViT.untrained(replace(BASE, **change))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def tokens(batch: int = 2) -> Tensor:
    return torch.randn(batch, *GRID, 16, generator=torch.Generator().manual_seed(2))


def plain_attention(layer: Attention, x_BLD: Tensor, allowed_ALL: Tensor) -> Tensor:
    """Softmax over all pairs, hidden ones at minus infinity; written out head by head."""
    q, k, v = (layer.project.weight @ x_BLD.transpose(1, 2) + layer.project.bias[:, None]).chunk(3, dim=1)
    heads = []
    for head in range(4):
        rows = slice(4 * head, 4 * head + 4)
        scores_BLL = q[:, rows].transpose(1, 2) @ k[:, rows] / math.sqrt(4)
        weights_BLL = scores_BLL.masked_fill(~allowed_ALL[head], -math.inf).softmax(-1)
        heads.append(weights_BLL @ v[:, rows].transpose(1, 2))
    return F.linear(torch.cat(heads, dim=-1), layer.out.weight, layer.out.bias)


def same(axis: str) -> Tensor:
    """(L, L): tokens of one step, or of one place."""
    t, places = GRID[0], GRID[1] * GRID[2]
    index = torch.arange(t * places)
    key = index // places if axis == "step" else index % places
    return key[:, None] == key[None, :]


def mlp(block: DividedBlock | FactorisedBlock, x_BLD: Tensor) -> Tensor:
    branch = block.mlp_branch.norm(x_BLD)
    return x_BLD + F.linear(
        F.gelu(F.linear(branch, block.mlp.into.weight, block.mlp.into.bias)), block.mlp.out.weight, block.mlp.out.bias
    )


def test_model_3_attends_over_a_step_then_over_a_place() -> None:
    model = model_of(model="factorised_self_attention", pooling="mean")
    encoder = model.encoder
    assert isinstance(encoder, FoldedEncoder)
    x_BthwD = tokens()
    x_BLD = (x_BthwD + encoder.positions.learned.table_thwD).flatten(1, 3)
    for block in encoder.stack.blocks:
        assert isinstance(block, FactorisedBlock)
        step, place = (same(axis).expand(4, -1, -1) for axis in ("step", "place"))
        x_BLD = x_BLD + plain_attention(block.attention, block.attention_branch.norm(x_BLD), step)  # equation 4
        x_BLD = x_BLD + plain_attention(block.time, block.time_branch.norm(x_BLD), place)  # equation 5
        x_BLD = mlp(block, x_BLD)  # equation 6
    torch.testing.assert_close(encoder(x_BthwD, None), encoder.stack.norm(x_BLD).mean(1), rtol=1e-4, atol=1e-4)


def test_model_4_gives_half_of_the_heads_to_space_and_half_to_time() -> None:
    model = model_of(model="factorised_dot_product", pooling="mean")
    encoder = model.encoder
    assert isinstance(encoder, FoldedEncoder)
    x_BthwD = tokens()
    x_BLD = (x_BthwD + encoder.positions.learned.table_thwD).flatten(1, 3)
    allowed_ALL = torch.stack([same("step"), same("step"), same("place"), same("place")])
    for block in encoder.stack.blocks:
        assert isinstance(block, DividedBlock)
        x_BLD = x_BLD + plain_attention(block.attention, block.attention_branch.norm(x_BLD), allowed_ALL)
        x_BLD = mlp(block, x_BLD)
    torch.testing.assert_close(encoder(x_BthwD, None), encoder.stack.norm(x_BLD).mean(1), rtol=1e-4, atol=1e-4)


def test_model_2_reads_steps_one_by_one_and_then_their_answers() -> None:
    model = model_of(model="factorised_encoder", temporal_depth=2)
    encoder = model.encoder
    assert isinstance(encoder, FactorisedEncoder)
    assert encoder.time is not None
    x_BthwD = tokens()
    steps = []
    for step in range(GRID[0]):
        places_BSD = (x_BthwD[:, step] + encoder.space_positions.learned.table_thwD[0]).flatten(1, 2)
        token_D = encoder.space.class_token_D
        assert token_D is not None
        read_BSD = torch.cat([token_D.expand(2, 1, -1), places_BSD], dim=1)
        for block in encoder.space.stack.blocks:
            read_BSD = block(read_BSD)
        steps.append(read_BSD[:, 0])
    steps_BtD = torch.stack(steps, dim=1) + encoder.time_positions.learned.table_thwD.flatten(0, 2)
    token_D = encoder.time.class_token_D
    assert token_D is not None
    answer_BD = encoder.time.stack(torch.cat([token_D.expand(2, 1, -1), steps_BtD], dim=1))[:, 0]
    torch.testing.assert_close(encoder(x_BthwD, None), answer_BD, rtol=1e-4, atol=1e-4)


def test_model_1_is_a_transformer_over_all_tokens() -> None:
    model = model_of()
    encoder = model.encoder
    assert isinstance(encoder, SpatioTemporalEncoder)
    token_D = encoder.pooled.class_token_D
    assert token_D is not None
    x_BthwD = tokens()
    x_BLD = (x_BthwD + encoder.positions.learned.table_thwD).flatten(1, 3)
    answer_BD = encoder.pooled.stack(torch.cat([token_D.expand(2, 1, -1), x_BLD], dim=1))[:, 0]
    torch.testing.assert_close(encoder(x_BthwD, None), answer_BD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [{"model": "factorised_encoder", "temporal_depth": 1}, {}])
def test_order_in_time_matters_through_positions_alone(change: dict[str, object]) -> None:
    model = model_of(**change)
    video = torch.randn(1, 1, 6, 8, 16, generator=torch.Generator().manual_seed(0))
    turned = video.view(1, 1, 3, 2, 8, 16).flip(2).view(video.shape)  # tubelets in reverse, each as it was
    assert float((model(video)["label"] - model(turned)["label"]).detach().abs().max()) > 1e-3
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "positions" in name:
                parameter.zero_()
    torch.testing.assert_close(model(video)["label"], model(turned)["label"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", ["factorised_encoder", "factorised_self_attention", "factorised_dot_product"])
def test_clips_of_any_grid_are_as_one_by_one(model: str) -> None:
    depth = 1 if model == "factorised_encoder" else None
    encoder = model_of(model=model, pooling="mean", temporal_depth=depth).encoder
    own = [(3, 2, 4), (1, 2, 3), (2, 1, 4)]
    x_BthwD = tokens(3)
    together = encoder(x_BthwD, own)
    for index, (t, h, w) in enumerate(own):
        alone = encoder(x_BthwD[index : index + 1, :t, :h, :w], None)
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-4)


def test_folds_mask_what_lies_past_the_own_grid() -> None:
    fold = Fold.of((2, 1, 3), [(2, 1, 3), (1, 1, 2)], torch.device("cpu"))
    valid_BL = fold.tokens_BL()
    assert valid_BL is not None
    assert valid_BL.int().tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]
    places, steps = fold.places_of_steps(), fold.steps_of_places()
    assert places is not None
    assert steps is not None
    assert places.int().tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 0]]
    assert steps.int().tolist() == [[1, 1]] * 3 + [[1, 0]] * 3
    assert Fold.of((2, 1, 3), [(2, 1, 3)], torch.device("cpu")).tokens_BL() is None
    x_BLD = torch.arange(12.0).view(2, 6, 1)
    assert masked_mean(x_BLD, valid_BL).flatten().tolist() == [2.5, 6.5]


def test_positions_are_cut_along_time_and_stretched_elsewhere() -> None:
    positions = GridPositions(grid=(2, 1, 2), dim=1)
    with torch.no_grad():
        positions.learned.table_thwD.copy_(torch.arange(4.0).view(2, 1, 2, 1))
    assert positions((1, 1, 2)).flatten().tolist() == [0, 1]
    assert positions((2, 1, 1)).flatten().tolist() == [0.5, 2.5]
    assert positions((2, 1, 2), [(2, 1, 2), (1, 1, 2)]).flatten().tolist() == [0, 1, 2, 3, 0, 1, 0, 0]
    stretched = positions((4, 1, 2)).view(4, 2)
    torch.testing.assert_close(stretched[:, 0], torch.tensor([0.0, 0.5, 1.5, 2.0]))
    row = GridPositions(grid=(1, 1, 2), dim=1, prefix=(0, 2))
    assert torch.equal(row((1, 1, 1)).flatten(), row((1, 1, 2)).flatten()[:1])
