from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tokenreel.errors import FormatError, InputError
from tokenreel.train.features import feature_pairs
from tokenreel.train.lpips import LPIPS, load_lpips

WIDTHS = (4, 4, "M", 5, 5, "M", 6, 6, 6, "M", 7, 7, 7, "M", 7, 7, 7)
ENDS = (3, 8, 15, 22, 29)  # the ReLU that ends each stage, in torchvision's vgg16().features


def stand_in() -> nn.Sequential:
    """VGG16's layers in torchvision's order, narrow, with random weights."""
    layers: list[nn.Module] = []
    inner = 3
    for width in WIDTHS:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(inner, width, 3, padding=1), nn.ReLU()]
            inner = width
    return nn.Sequential(*layers)


@pytest.fixture
def features() -> nn.Sequential:
    torch.manual_seed(0)
    return stand_in()


def state_of(features: nn.Sequential) -> dict[str, torch.Tensor]:
    heads = {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate((4, 5, 6, 7, 7))}
    return {f"features.{name}": value.clone() for name, value in features.state_dict().items()} | heads


@torch.no_grad()
def reference(features: nn.Sequential, state: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> float:
    """LPIPS of two frames (3, H, W), as the paper's eq. 1 is written."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = ((frame - shift[:, None, None]) / scale[:, None, None] for frame in (x, y))
    total = 0.0
    for index, layer in enumerate(features):
        x, y = layer(x[None])[0], layer(y[None])[0]
        if index in ENDS:
            head = state[f"lin{ENDS.index(index)}.model.1.weight"][0]
            difference = x / (x.norm(dim=0) + 1e-10) - y / (y.norm(dim=0) + 1e-10)
            total += float((head * difference.square()).sum(0).mean())
    return total


def test_it_is_the_paper_on_a_stand_in(features: nn.Sequential) -> None:
    state = state_of(features)
    network = LPIPS(state)
    x, y = torch.rand(2, 2, 3, 2, 37, 33) * 2 - 1
    ours = network.loss(feature_pairs(network, x, y), None)
    assert not ours.requires_grad
    expected = sum(reference(features, state, x[b, :, t], y[b, :, t]) for b in range(2) for t in range(2)) / 4
    assert float(ours) == pytest.approx(expected, rel=1e-4)
    assert network.loss(feature_pairs(network, x, x), None) == 0
    valid = torch.tensor([[True, False], [False, False]])
    masked = float(network.loss(feature_pairs(network, x, y), valid))
    assert masked == pytest.approx(reference(features, state, x[0, :, 0], y[0, :, 0]), rel=1e-4)


def test_nothing_is_learned_or_stored(features: nn.Sequential) -> None:
    network = LPIPS(state_of(features))
    assert not list(network.parameters())
    assert not network.state_dict()


def test_weights_come_from_one_file_or_two_under_either_naming(features: nn.Sequential, tmp_path: Path) -> None:
    state = state_of(features)
    vgg = {name: value for name, value in state.items() if name.startswith("features")}
    heads = {name: value for name, value in state.items() if name.startswith("lin")}
    save_file(state | {"classifier.0.weight": torch.zeros(2)}, tmp_path / "all.safetensors")
    save_file(vgg, tmp_path / "vgg.safetensors")
    save_file(heads, tmp_path / "heads.safetensors")
    package = {name.replace("features", "net.slice1"): value for name, value in vgg.items()}
    package |= {name.replace("lin", "lins.", 1): value for name, value in heads.items()}
    package |= heads | {"scaling_layer.shift": torch.zeros(3)}
    save_file({name: value.clone() for name, value in package.items()}, tmp_path / "package.safetensors")
    x = torch.rand(1, 3, 1, 16, 16)
    wanted = LPIPS(state)(x)
    for sources in (
        tmp_path / "all.safetensors",
        [tmp_path / "vgg.safetensors", str(tmp_path / "heads.safetensors")],
        str(tmp_path / "package.safetensors"),
    ):
        for ours, theirs in zip(load_lpips(sources)(x), wanted, strict=True):
            assert torch.equal(ours, theirs)


def test_weights_that_lack_or_do_not_fit_are_named(features: nn.Sequential, tmp_path: Path) -> None:
    state = state_of(features)
    lacking = {name: value for name, value in state.items() if name != "features.12.bias"}
    with pytest.raises(FormatError, match=r"lack 1 of 31 tensors, first features\.12\.bias"):
        LPIPS(lacking)
    with pytest.raises(FormatError, match=r"features\.5\.weight must be \(D, 4, 3, 3\)"):
        LPIPS(state | {"features.5.weight": torch.zeros(5, 3, 3, 3)})
    with pytest.raises(FormatError, match=r"lin2\.model\.1\.weight must be \(1, 6, 1, 1\)"):
        LPIPS(state | {"lin2.model.1.weight": torch.zeros(1, 5, 1, 1)})
    (tmp_path / "bad.safetensors").write_bytes(b"no such format")
    with pytest.raises(FormatError, match="not a safetensors file"):
        load_lpips(tmp_path / "bad.safetensors")


def test_nothing_is_downloaded_unless_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked = []

    def fetch(repo: str, name: str) -> str:
        asked.append((repo, name))
        save_file(state_of(stand_in()), tmp_path / "fetched.safetensors")
        return str(tmp_path / "fetched.safetensors")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    with pytest.raises(InputError, match="download=True"):
        load_lpips("owner/name/lpips.safetensors")
    with pytest.raises(InputError, match="no LPIPS weights at nothing"):
        load_lpips("nothing", download=True)
    assert asked == []
    load_lpips("owner/name/folder/lpips.safetensors", download=True)
    assert asked == [("owner/name", "folder/lpips.safetensors")]


def test_gradients_are_finite_on_flat_and_equal_frames(features: nn.Sequential) -> None:
    network = LPIPS(state_of(features))
    for theirs in (torch.zeros(1, 3, 1, 16, 16), torch.ones(1, 3, 1, 16, 16)):
        ours = torch.zeros(1, 3, 1, 16, 16, requires_grad=True)
        network.loss(feature_pairs(network, ours, theirs), None).backward()
        assert ours.grad is not None
        assert torch.isfinite(ours.grad).all()


def test_what_it_cannot_read_is_refused(features: nn.Sequential) -> None:
    network = LPIPS(state_of(features))
    for shape in ((1, 3, 1, 15, 32), (1, 1, 1, 32, 32)):
        with pytest.raises(InputError, match="3 channels of at least 16x16"):
            network(torch.zeros(shape))
