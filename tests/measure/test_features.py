"""Feature distances with a network of known features: the mean colour."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from coarse import CoarseTokenizer
from torch import Tensor, nn

from tokenreel.data.opening import open_collection
from tokenreel.errors import FormatError, InputError
from tokenreel.measure.evaluate import Evaluator
from tokenreel.measure.features import Extractor, FeatureMeter, parse_features
from tokenreel.measure.protocol import Protocol


class MeanColour(nn.Module):
    """(N, 3, ...) -> (N, 3): the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float32).flatten(2).mean(2)


class Scaled(nn.Module):
    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        return x.to(torch.float32).flatten(2).mean(2) * factor


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scripted(MeanColour(), tmp_path_factory.mktemp("networks") / "mean.pt")


def scripted(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), str(path))
    return path


def videos(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(count):
        a = torch.rand(3, 4, 8, 8, generator=generator)
        pairs.append((a, (a + 0.25 * torch.rand(3, 1, 1, 1, generator=generator)).clamp(0, 1)))
    return pairs


def covariance_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance by eigenvalues of the product."""
    s1, s2 = np.cov(a.T), np.cov(b.T)
    cross = np.sqrt(np.linalg.eigvals(s1 @ s2).real.clip(min=0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * cross)


def test_rfid_and_rfvd_are_plain_distances_of_mean_colours(network: Path) -> None:
    pairs = videos(9)
    for name, axes in (("rfid", (2, 3)), ("rfvd", (1, 2, 3))):
        meter = FeatureMeter(name, Extractor.open(network))
        for a, b in pairs:
            meter.add(a, b)
        sides = [
            np.concatenate([(pair[side] * 2 - 1).mean(axes).double().numpy().T.reshape(-1, 3) for pair in pairs])
            for side in (0, 1)
        ]
        score = meter.score()
        assert score.value == pytest.approx(covariance_distance(*sides), rel=1e-4)
        assert (score.num_vectors, score.dim) == ((36, 3) if name == "rfid" else (9, 3))
        assert score.sha256 == hashlib.sha256(network.read_bytes()).hexdigest()


def test_jedi_is_a_hundred_times_the_quadratic_mmd(network: Path) -> None:
    pairs = videos(5)
    meter = FeatureMeter("jedi", Extractor.open(network))
    for a, b in pairs:
        meter.add(a, b)
    x, y = (np.stack([(pair[side] * 2 - 1).mean((1, 2, 3)).double().numpy() for pair in pairs]) for side in (0, 1))
    gap = x.T @ x / 5 - y.T @ y / 5
    assert meter.score().value == pytest.approx(100 * (gap**2).sum() / 9, rel=1e-4)


def test_equal_sets_are_at_distance_0(network: Path) -> None:
    for name in ("rfid", "rfvd", "jedi"):
        meter = FeatureMeter(name, Extractor.open(network))
        for a, _ in videos(4):
            meter.add(a, a)
        assert meter.score().value == pytest.approx(0, abs=1e-9)


def test_how_a_network_is_called(tmp_path: Path) -> None:
    path = scripted(Scaled(), tmp_path / "net.pt")
    a, _ = videos(1)[0]
    plain = FeatureMeter("rfvd", Extractor.open(path)).features(a)
    (tmp_path / "net.json").write_text(
        json.dumps({"size": 16, "range": "bytes", "frames": 2, "arguments": {"factor": 3.0}})
    )
    extractor = Extractor.open(path)
    assert extractor.sentence() == "net.pt, resized to 16x16, range bytes, the first 2 frames"
    called = FeatureMeter("rfvd", extractor).features(a)
    assert called.shape == plain.shape == (1, 3)
    np.testing.assert_allclose(called[0], 3 * 255 * a[:, :2].mean((1, 2, 3)).numpy(), rtol=0.01)
    with pytest.raises(InputError, match="wants 2 frames, a clip has 1"):
        FeatureMeter("rfvd", extractor).features(a[:, :1])
    assert FeatureMeter("rfid", extractor).features(a[:, :1]).shape == (1, 3)


def test_the_protocol_goes_with_the_figure(network: Path, make_clips: Callable[..., Path]) -> None:
    evaluator = Evaluator(
        open_collection(make_clips(3)),
        protocol=Protocol(frames=2, size=24),
        features=[parse_features(f"rfid={network}", is_video=True)],
    )
    values = evaluator.measure(CoarseTokenizer()).as_json()
    (score,) = values["features"]
    assert values["rfid"] == score["value"] > 0
    assert (score["vectors"], score["dim"], score["of"], score["few"]) == (6, 3, "frames", False)
    assert score["extractor_sha256"] == hashlib.sha256(network.read_bytes()).hexdigest()
    assert dict(evaluator.run(CoarseTokenizer()))["rfid"] == values["rfid"]  # nothing is left from the first run


def test_what_is_wrong_is_named(network: Path, tmp_path: Path) -> None:
    assert parse_features(str(network), is_video=True)[0] == "rfvd"
    assert parse_features(str(network), is_video=False)[0] == "rfid"
    with pytest.raises(InputError, match="NAME rfid, rfvd, jedi"):
        parse_features(f"fid={network}", is_video=True)
    with pytest.raises(InputError, match="no feature extractor"):
        parse_features("rfid=nothing.pt", is_video=True)
    foreign = tmp_path / "foreign.pt"
    foreign.write_bytes(b"not a network")
    with pytest.raises(FormatError, match="no TorchScript file"):
        FeatureMeter("rfid", Extractor.open(foreign))
    (tmp_path / "foreign.json").write_text('{"sise": 3}')
    with pytest.raises(FormatError, match="must hold only size"):
        Extractor.open(foreign)
    with pytest.raises(InputError, match="at least 2 clips, got 1"):
        meter = FeatureMeter("rfvd", Extractor.open(network))
        meter.add(*videos(1)[0])
        meter.score()
    with pytest.raises(InputError, match="no feature distance"):
        FeatureMeter("fvd", Extractor.open(network))
