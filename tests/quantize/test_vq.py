from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from tokenreel.errors import InputError
from tokenreel.quantize import VQ, VQConfig


def build(size: int = 20, dim: int = 4, seed: int = 0, **fields: Any) -> VQ:
    torch.manual_seed(seed)
    return VQ(VQConfig(codebook_size=size, codebook_dim=dim, **fields))


def batch(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(100 + seed))


def test_the_losses_are_the_seeds_equations() -> None:
    quantizer = build(commit_weight=0.3).double()
    latents = batch(3, 50, 4).double().requires_grad_()
    valid = batch(3, 50, seed=1) > 0
    _, ids, losses = quantizer(latents, valid_mask=valid)
    chosen = quantizer.codebook_KE[ids]
    mean = ((latents - chosen) ** 2)[valid].mean()
    torch.testing.assert_close(losses["codebook_loss"], mean)
    torch.testing.assert_close(losses["commit_loss"], 0.3 * mean)
    count = valid.sum() * 4
    # |sg(z) - e|^2 moves the codes only, beta |z - sg(e)|^2 the latents only
    of_codes = torch.autograd.grad(losses["codebook_loss"], [quantizer.codebook_KE], retain_graph=True)[0]
    pull = (2 * (chosen - latents) * valid[..., None] / count).detach()
    expected = torch.zeros_like(of_codes).index_add_(0, ids.flatten(), pull.flatten(0, 1))
    torch.testing.assert_close(of_codes, expected)
    of_latents = torch.autograd.grad(losses["commit_loss"], [latents], retain_graph=True)[0]
    torch.testing.assert_close(of_latents, -0.3 * pull)
    assert torch.autograd.grad(losses["codebook_loss"], [latents], retain_graph=True, allow_unused=True) == (None,)
    assert not torch.autograd.grad(losses["commit_loss"], [quantizer.codebook_KE], allow_unused=True)[0]
    assert set(quantizer.eval()(latents).aux_losses) == set()


def test_cosine_look_up_is_used() -> None:
    quantizer = build(size=50, l2_norm=True)
    with torch.no_grad():
        quantizer.codebook_KE *= torch.linspace(0.1, 10, 50)[:, None]  # lengths would decide a euclidean look-up
    latents = batch(300, 4)
    codes, ids, losses = quantizer(latents)
    cosine = normalize(latents, dim=1) @ normalize(quantizer.codebook_KE, dim=1).T
    assert torch.equal(ids, cosine.argmax(1))
    assert not torch.equal(ids, torch.cdist(latents, quantizer.codebook_KE).argmin(1))
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(300))
    assert torch.equal(quantizer(latents * 7.5).ids, ids)
    expected = (normalize(latents, dim=1) - codes).square().mean()
    torch.testing.assert_close(losses["codebook_loss"], expected)


def test_moving_averages_are_the_written_out_formula() -> None:
    quantizer = build(size=6, learning="ema", ema_decay=0.9)
    assert not list(quantizer.parameters())
    counts, sums = torch.ones(6), quantizer.codebook_KE.clone()
    codebook = quantizer.codebook_KE.clone()
    for step in range(5):
        latents, valid = batch(2, 40, 4, seed=step), batch(2, 40, seed=50 + step) > -0.5
        _, ids, losses = quantizer(latents, valid_mask=valid)
        distance = torch.cdist(latents.flatten(0, 1), codebook)
        assert torch.equal(ids.flatten(), distance.argmin(1))
        assert set(losses) == {"commit_loss"}
        for code in range(6):
            mine = latents[valid & (ids == code)]
            counts[code] = 0.9 * counts[code] + 0.1 * len(mine)
            sums[code] = 0.9 * sums[code] + 0.1 * mine.sum(0)
            codebook[code] = sums[code] / counts[code]
        torch.testing.assert_close(quantizer.ema_counts_K, counts)
        torch.testing.assert_close(quantizer.ema_sums_KE, sums)
        torch.testing.assert_close(quantizer.codebook_KE, codebook)
    before = quantizer.codebook_KE.clone()
    quantizer.eval()(batch(9, 4))
    assert torch.equal(quantizer.codebook_KE, before)


def test_a_code_that_is_never_used_stays_where_it_is() -> None:
    quantizer = build(size=3, learning="ema", ema_decay=0.5)
    quantizer._place(torch.arange(3), torch.tensor([[0.0] * 4, [1.0] * 4, [90.0] * 4]))
    for step in range(400):
        quantizer(batch(10, 4, seed=step))
    assert quantizer.ema_counts_K[2] == 0
    torch.testing.assert_close(quantizer.codebook_KE[2], torch.full((4,), 90.0), rtol=1e-3, atol=0)
    assert torch.isfinite(quantizer.codebook_KE).all()


@pytest.mark.parametrize("learning", ["gradient", "ema"])
@pytest.mark.parametrize("l2_norm", [False, True])
def test_dead_codes_are_revived(learning: str, l2_norm: bool) -> None:
    quantizer = build(learning=learning, revive_every=2, l2_norm=l2_norm)
    far = torch.tensor([-1.0, 0, 0, 0]) if l2_norm else torch.full((4,), 1e3)
    with torch.no_grad():
        quantizer._place(torch.arange(5, 20), far.expand(15, 4))
    latents = batch(400, 4)
    latents[:, 0] = latents[:, 0].abs()
    ids = quantizer(latents).ids
    assert len(ids.unique()) <= 6
    assert torch.equal(quantizer.hits_K, torch.bincount(ids, minlength=20))
    assert len(quantizer(latents).ids.unique()) <= 6  # the second of two batches
    after = quantizer(latents).ids
    assert len(after.unique()) >= 17
    placed = quantizer.codebook()[5:].detach()
    if learning == "gradient":
        given = normalize(latents, dim=1) if l2_norm else latents
        assert (torch.cdist(placed, given).amin(1) < 0.01).sum() >= 13
    assert torch.equal(quantizer.hits_K, torch.bincount(after, minlength=20))


def test_padded_latents_are_never_taken_for_codes() -> None:
    quantizer = build(start="kmeans", revive_every=1)
    latents, valid = batch(2, 60, 4), torch.arange(60).expand(2, -1) < 50
    latents[~valid] = 1e6
    for _ in range(3):
        quantizer(latents, valid_mask=valid)
        assert quantizer.codebook_KE.abs().max() < 10
    assert int(quantizer.hits_K.sum()) == 100


@pytest.mark.parametrize("fields", [{}, {"learning": "ema"}, {"l2_norm": True}, {"learning": "simvq"}])
def test_kmeans_starts_from_the_first_batch(fields: dict[str, Any]) -> None:
    latents = batch(500, 4) * 3 + 5
    plain, started = build(**fields), build(start="kmeans", **fields)
    given = normalize(latents, dim=1) if started.config.l2_norm else latents

    def error(quantizer: VQ) -> float:
        return float((given - quantizer.eval()(latents).codes).square().mean())

    assert not started.is_started
    started(latents)
    assert started.is_started
    assert error(started) < 0.6 * error(plain)
    again = build(start="kmeans", seed=9, **fields)  # other weights, the same seed of its own
    again(latents)
    assert torch.equal(again.codebook_KE, started.codebook_KE)
    other = build(start="kmeans", **fields)
    other.train()(latents, generator=torch.Generator().manual_seed(5))
    assert not torch.equal(other.codebook_KE, started.codebook_KE)
    chosen = build(**fields)
    chosen.start_from(latents.view(5, 100, 4))
    assert error(chosen) < 0.6 * error(plain)


def test_a_loaded_codebook_is_not_started_again() -> None:
    started, other = build(start="kmeans"), build(start="kmeans", seed=1)
    started(batch(100, 4))
    other.load_state_dict(started.state_dict())
    other(batch(100, 4, seed=1))
    assert torch.equal(other.codebook_KE, started.codebook_KE)


def test_simvq_learns_its_map_alone() -> None:
    quantizer = build(learning="simvq")
    assert [name for name, _ in quantizer.named_parameters()] == ["transform_EE"]
    with torch.no_grad():
        quantizer.transform_EE.copy_(batch(4, 4))
    latents = batch(100, 4, seed=1)
    _, ids, losses = quantizer(latents)
    mapped = quantizer.codebook_KE @ quantizer.transform_EE.T
    assert torch.equal(ids, torch.cdist(latents, mapped).argmin(1))
    losses["codebook_loss"].backward()
    chosen = quantizer.codebook_KE[ids]
    expected = (2 * (chosen @ quantizer.transform_EE.T - latents) / latents.numel()).T @ chosen
    torch.testing.assert_close(quantizer.transform_EE.grad, expected.detach())


@pytest.mark.parametrize("learning", ["gradient", "simvq", "ema"])
@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_training_lowers_the_distortion(learning: str, estimator: str) -> None:
    quantizer = build(size=32, learning=learning, estimator=estimator, revive_every=None if learning == "simvq" else 5)
    latents = batch(600, 4) * 2 + 1
    first = float((latents - quantizer(latents).codes).square().mean())
    parameters = list(quantizer.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.05) if parameters else None
    for _ in range(60):
        losses = quantizer(latents).aux_losses
        if optimizer is not None:
            optimizer.zero_grad()
            sum(losses.values()).backward()  # type: ignore[union-attr]
            optimizer.step()
    last = float((latents - quantizer.eval()(latents).codes).square().mean())
    assert last < 0.5 * first


def test_a_resumed_run_revives_the_same_codes() -> None:
    def run(steps: range, state: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
        quantizer = build(size=64, learning="ema", start="kmeans", revive_every=2, seed=len(steps))
        if state is not None:
            quantizer.load_state_dict(state)
        for step in steps:
            quantizer(batch(50, 4, seed=step))
        return {name: value.clone() for name, value in quantizer.state_dict().items()}

    whole, resumed = run(range(7), None), run(range(3, 7), run(range(3), None))
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_bad_configs_are_refused() -> None:
    for fields, match in (
        ({"codebook_size": 0}, "codebook_size"),
        ({"learning": "adam"}, "gradient, ema, simvq"),
        ({"estimator": "gumbel"}, "estimator"),
        ({"learning": "simvq", "revive_every": 3}, "frozen"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"revive_every": 0}, "revive_every"),
    ):
        with pytest.raises(InputError, match=match):
            VQConfig(**{"codebook_size": 4, "codebook_dim": 2, **fields})  # type: ignore[arg-type]
