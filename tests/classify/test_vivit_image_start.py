"""A ViViT that starts as an image ViT: on a still it gives the image model's features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.classify import ViViT, ViViTConfig
from tokenreel.errors import InputError, MismatchError
from tokenreel.tokenizers.configs import BlockOptions, Stack

torch.set_num_threads(1)

DIM, SIDE, PATCH = 16, 12, 4
CONFIG = ViViTConfig(
    model="spatio_temporal",
    num_frames=6,
    size=(SIDE, SIDE),
    in_channels=3,
    patch_size=(2, PATCH, PATCH),
    encoder=Stack(dim=DIM, depth=2, num_heads=2, head_dim=8, mlp_dim=32),
    pooling="mean",
    heads=(("label", ("a", "b", "c")),),
)


class ImageBlock(nn.Module):
    """A block with timm's names, written with torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM, eps=1e-6), nn.LayerNorm(DIM, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(DIM, 3 * DIM), "proj": nn.Linear(DIM, DIM)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(DIM, 32), "fc2": nn.Linear(32, DIM)})

    def forward(self, x_BLD: Tensor) -> Tensor:
        qkv = self.attn["qkv"](self.norm1(x_BLD)).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        heads = (qkv[0] @ qkv[1].transpose(-1, -2) / 8**0.5).softmax(-1) @ qkv[2]
        x_BLD = x_BLD + self.attn["proj"](heads.transpose(1, 2).flatten(2))
        out: Tensor = x_BLD + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x_BLD))))
        return out


class ImageViT(nn.Module):
    def __init__(self, *, class_token: bool) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, DIM, PATCH, stride=PATCH)})
        if class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, DIM))
        self.pos_embed = nn.Parameter(torch.zeros(1, (SIDE // PATCH) ** 2 + class_token, DIM))
        self.blocks = nn.ModuleList(ImageBlock() for _ in range(2))
        self.norm = nn.LayerNorm(DIM, eps=1e-6)
        self.head = nn.Linear(DIM, 3)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        x_BLD = self.patch_embed["proj"](image_BCHW).flatten(2).transpose(1, 2)
        if hasattr(self, "cls_token"):
            x_BLD = torch.cat([self.cls_token.expand(len(x_BLD), -1, -1), x_BLD], dim=1)
        x_BLD = x_BLD + self.pos_embed
        for block in self.blocks:
            x_BLD = block(x_BLD)
        x_BLD = self.norm(x_BLD)
        logits: Tensor = self.head(x_BLD[:, 0] if hasattr(self, "cls_token") else x_BLD.mean(1))
        return logits


def started(config: ViViTConfig, image: ImageViT, how: Literal["central", "average"]) -> ViViT:
    model = ViViT.untrained(config)
    model.init_from_image_vit(image.state_dict(), how=how)
    with torch.no_grad():
        model.out.out.weight.copy_(image.head.weight)
        model.out.out.bias.copy_(image.head.bias)
    return model


TOKEN_THEN_MEAN = {"pooling": "class_token", "temporal_pooling": "mean"}
EXACT: dict[str, tuple[dict[str, Any], bool]] = {
    "1": ({}, False),
    "2": ({"model": "factorised_encoder", "temporal_depth": 2, **TOKEN_THEN_MEAN}, True),
    "2 average of means": ({"model": "factorised_encoder", "temporal_depth": 0}, False),
    "2 average": ({"model": "factorised_encoder", "temporal_depth": 0, "pooling": "class_token"}, True),
    "3": ({"model": "factorised_self_attention"}, False),
}


@pytest.mark.parametrize("how", ["central", "average"])
@pytest.mark.parametrize("name", EXACT)
@torch.no_grad()
def test_a_still_has_the_image_model_s_logits(name: str, how: Literal["central", "average"]) -> None:
    change, class_token = EXACT[name]
    image = ImageViT(class_token=class_token)
    model = started(replace(CONFIG, **change), image, how)
    still = torch.rand(2, 3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    video = still.expand(-1, -1, 6, -1, -1)
    wanted = image(still[:, :, 0])
    assert float(wanted.std()) > 0.1
    torch.testing.assert_close(model(video)["label"], wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_central_reads_one_frame_and_average_all() -> None:
    image = ImageViT(class_token=False)
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(1, 3, 2, SIDE, SIDE, generator=generator) * 2 - 1
    config = replace(CONFIG, num_frames=2)
    central, average = (started(config, image, how)(video)["label"] for how in ("central", "average"))
    torch.testing.assert_close(central, image(video[:, :, 1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(average, image(video.mean(2)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["2", "3"])
def test_what_begins_as_nothing_can_learn(name: str) -> None:
    change, class_token = EXACT[name]
    model = started(replace(CONFIG, **change), ImageViT(class_token=class_token), "average").train()
    video = torch.rand(2, 3, 6, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    F.cross_entropy(model(video)["label"], torch.tensor([0, 1])).backward()
    silent = [name for name, parameter in model.named_parameters() if name.endswith("out.weight") and ".time" in name]
    assert silent
    for name, parameter in model.named_parameters():
        if name in silent:
            assert float(parameter.detach().abs().max()) == 0
            assert parameter.grad is not None
            assert float(parameter.grad.abs().max()) > 0


def test_every_model_takes_the_weights_and_other_sizes_stretch_positions() -> None:
    for change in ({}, {"model": "factorised_encoder", "temporal_depth": 1}):
        config = replace(CONFIG, pooling="class_token", size=(20, 16), **change)  # type: ignore[arg-type]
        started(config, ImageViT(class_token=True), "central")
    model = started(replace(CONFIG, model="factorised_dot_product"), ImageViT(class_token=True), "central")
    image = ImageViT(class_token=True)
    table = model.encoder.positions.learned.table_thwD  # type: ignore[union-attr]
    for step in table:  # type: ignore[union-attr]
        assert torch.equal(step.flatten(0, 1), image.pos_embed[0, 1:])


def test_weights_that_do_not_fit_are_refused() -> None:
    state = ImageViT(class_token=False).state_dict()
    for change, words in (
        ({"pooling": "class_token"}, "has a class token, the image ViT has none"),
        ({"encoder": replace(CONFIG.encoder, depth=3)}, "2 blocks, this model 3"),
        ({"encoder": replace(CONFIG.encoder, mlp_dim=48)}, "into.weight is"),
        ({"patch_size": (2, 8, 8)}, "embeds patches by"),
        ({"blocks": BlockOptions(norm="rms")}, "this model has"),
    ):
        with pytest.raises(MismatchError, match=words):
            ViViT.untrained(replace(CONFIG, **change)).init_from_image_vit(state)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a classifier with stem_channels cannot start from it"):
        ViViT.untrained(replace(CONFIG, stem_channels=4)).init_from_image_vit(state)
    with pytest.raises(InputError, match="'central' or 'average'"):
        ViViT.untrained(CONFIG).init_from_image_vit(state, how="first")  # type: ignore[arg-type]
