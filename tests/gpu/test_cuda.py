"""What only a CUDA device can show: kernels agree with the CPU, causality holds in bf16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tokenreel.nn.attention import attend
from tokenreel.tokenizers import load, untrained
from tokenreel.tokenizers.learned import LearnedTokenizer

pytestmark = pytest.mark.gpu

NAMES = ["cvivit:tiny", "titok:tiny", "titok_video:tiny"]


@pytest.fixture(autouse=True)
def needs_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator) * 2 - 1 for size in ((9, 64, 96), (1, 40, 40), (6, 64, 64))]


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_pixels_are_those_of_the_cpu(name: str, tmp_path: Path) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    model = untrained(name)
    model.save_pretrained(tmp_path / "m")
    on_cuda = load(tmp_path / "m", device="cuda")
    assert on_cuda.fingerprint == model.fingerprint
    for ours, theirs in zip(on_cuda.encode(clips()), model.encode(clips())):
        assert np.mean(ours.ids_L == theirs.ids_L) > 0.999
    tokens = model.encode(clips())
    for ours, theirs in zip(on_cuda.decode(tokens), model.decode(tokens)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_causality_is_exact_in_bf16() -> None:
    model = untrained("cvivit:tiny").cuda()
    video = clips()[0][None].cuda()
    changed = video.clone()
    changed[:, :, -1] = -changed[:, :, -1]
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        before, after = model(video), model(changed)
    assert torch.equal(before.latents[:, :2], after.latents[:, :2])
    assert torch.equal(before.video[:, :, :5], after.video[:, :, :5])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 5}])
def test_the_packed_kernel_is_attention_of_each_sequence(dtype: torch.dtype, options: dict[str, object]) -> None:
    bounds = (0, 7, 7 + 33, 7 + 33 + 64)
    q, k, v = (torch.randn(bounds[-1], 4, 64, device="cuda", dtype=dtype) for _ in range(3))
    packed = attend(q, k, v, cu_seqlens=bounds, **options)  # type: ignore[arg-type]
    wide = attend(q.double(), k.double(), v.double(), cu_seqlens=bounds, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(packed.double(), wide, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_training_runs_compiled_in_bf16(name: str) -> None:
    model = untrained(name).cuda().train()
    assert isinstance(model, LearnedTokenizer)
    compiled = torch.compile(model, fullgraph=name != "titok:tiny")  # nested dropout draws lengths
    video = torch.stack([clips()[0][:, :8, :64, :64]] * 2).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        out = compiled(video)
    loss = (out.video.float() - video).square().mean() + sum(out.aux.values())
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
