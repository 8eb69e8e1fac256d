"""Cost of every loss term and every critic on one thread, forward and backward, beside the plain L1.

    python benchmarks/bench_losses.py [--quick] [--size 1,3,17,128,128]

Values are checked first: terms are 0 for equal videos, critics answer with finite logits. LPIPS runs with random
weights of VGG16's widths, which cost what the trained ones do. Times are CPU seconds (time.process_time), median and
spread of the runs.
"""

from __future__ import annotations

import argparse

import torch

from clock import cpu_name, cpu_seconds, told
from tokenreel.train.adversarial_pair import AdversarialConfig, AdversarialPair
from tokenreel.train.discriminator_style import StyleDiscriminatorConfig
from tokenreel.train.discriminator_vit import ViTDiscriminatorConfig
from tokenreel.train.discriminators import PatchDiscriminatorConfig
from tokenreel.train.features import RandomFeaturesConfig
from tokenreel.train.losses import LossConfig, Losses
from tokenreel.train.lpips import LPIPS
from tokenreel.train.term import Term

ONE = Term(weight=1.0)
VGG16 = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
PLACES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


def random_lpips() -> LPIPS:
    state, inner = {}, 3
    for stage, (places, widths) in enumerate(zip(PLACES, VGG16)):
        for place, width in zip(places, widths):
            state[f"features.{place}.weight"] = torch.randn(width, inner, 3, 3) * (2 / (9 * inner)) ** 0.5
            state[f"features.{place}.bias"] = torch.zeros(width)
            inner = width
        state[f"lin{stage}.model.1.weight"] = torch.rand(1, inner, 1, 1)
    return LPIPS(state)


def bench_terms(shape: tuple[int, ...], repeats: int) -> None:
    deep = RandomFeaturesConfig(dims=3)
    cases = {
        "l1": LossConfig(l1=ONE),
        "l2": LossConfig(l2=ONE),
        "charbonnier": LossConfig(charbonnier=ONE),
        "temporal": LossConfig(temporal=ONE),
        "haar, 3 levels": LossConfig(haar=ONE),
        "random features, 2-D": LossConfig(random=ONE),
        "random features, 3-D": LossConfig(random=ONE, random_features=deep),
        "gram of random features": LossConfig(gram=ONE),
        "random features and their gram": LossConfig(random=ONE, gram=ONE),
        "random features, 4 frames": LossConfig(random=ONE, max_frames=4),
        "lpips, 4 frames": LossConfig(lpips=ONE, max_frames=4),
        "lpips": LossConfig(lpips=ONE),
    }
    target = torch.rand(shape) * 2 - 1
    ours = (target + 0.1 * torch.randn(shape)).requires_grad_()
    network = random_lpips()
    for name, config in cases.items():
        losses = Losses(config, lpips=network)
        few = min(repeats, 3) if name == "lpips" else repeats
        assert name == "lpips" or float(losses(target, target, step=0)[0]) < 1e-6
        told(name, cpu_seconds(lambda losses=losses: torch.autograd.grad(losses(ours, target, step=0)[0], ours), few))


def bench_critics(shape: tuple[int, ...], repeats: int) -> None:
    kinds = {
        "patch, 2-D": PatchDiscriminatorConfig(),
        "patch, 3-D": PatchDiscriminatorConfig(dims=3),
        "style, 2-D, widths / 4": StyleDiscriminatorConfig(dims=2, widths=(16, 32, 64, 128, 128)),
        "style, 3-D, widths / 4": StyleDiscriminatorConfig(dims=3, widths=(16, 32, 64, 128, 128)),
        "vit": ViTDiscriminatorConfig(),
    }
    target = torch.rand(shape) * 2 - 1
    ours = (target + 0.1 * torch.randn(shape)).requires_grad_()
    for name, kind in kinds.items():
        plain = AdversarialPair(AdversarialConfig(generator=ONE, discriminator=kind))
        penalised = AdversarialPair(AdversarialConfig(generator=ONE, discriminator=kind, r1=ONE, r2=ONE))
        count = sum(parameter.numel() for parameter in plain.parameters())
        assert torch.isfinite(plain.discriminator(target)).all()
        told(
            f"{name} ({count / 1e6:.2f} M), generator",
            cpu_seconds(
                lambda pair=plain: torch.autograd.grad(pair.generator_loss(ours, target, step=0)[0], ours), repeats
            ),
        )
        for way, pair in (("critic", plain), ("critic with R1 and R2", penalised)):
            told(f"{name}, {way}", cpu_seconds(lambda pair=pair: pair(ours, target, step=0)[0].backward(), repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--size", default="1,3,17,128,128", help="B,C,T,H,W")
    arguments = parser.parse_args()
    shape = tuple(int(side) for side in arguments.size.split(","))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{cpu_name()}, torch {torch.__version__}, 1 thread, maybe shared; {arguments.size}, forward and backward")
    bench_terms(shape, 3 if arguments.quick else 9)
    bench_critics(shape, 1 if arguments.quick else 3)


if __name__ == "__main__":
    main()
