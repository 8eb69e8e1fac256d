"""Prompts to scores: whether a generator of the drawn world makes what it is told.

    python benchmarks/bench_generate_quality.py [--model MODEL]
    python benchmarks/bench_generate_quality.py --table --prompts 8
    python benchmarks/bench_generate_quality.py --storyboards --prompts 20

How it is sampled is what the generator keeps as best, unless said.

One thing: a classifier that never saw a generated clip says shape, colour, texture, background and motion of clips made
from full captions; of combinations that training showed, and of those that it never did. Several things, and stories of
two phases: the pixels of each thing's colour are followed, and what they do is told by a rule of ten lines; a thing is
right if it is there and does what it was told. Both are also asked of real clips, drawn, and drawn and then sent
through the tokenizer: the ceiling. Intervals are Wilson's, of 95 %. Prompts and seeds are fixed.

Storyboards: one thing on one background does three things in turn, a scene of its own each. Every scene is judged
against its own prompt, and the mean absolute difference of frames across a border is set against that inside scenes.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tokenreel.classify import Classifier
from tokenreel.classify import load as load_classifier
from tokenreel.generate import MaskGIT, TokenCritic
from tokenreel.generate.sample_still import sample_from_still
from tokenreel.generate.scenes import make_scenes
from tokenreel.generate.storyboard import Scene, Storyboard
from tokenreel.jobs.generate_models import tokenizer_for, trained_on
from tokenreel.measure.classification import wilson
from tokenreel.media.pixels import to_frames, to_video
from tokenreel.render import HEADS, caption, draw_scene, is_held_out, labels, render_clip
from tokenreel.render.colours import COLOURS
from tokenreel.render.motion import Move
from tokenreel.render.world import WorldScene
from tokenreel.tokenizers import Tokenizer
from tokenreel.tokenizers.hub import GENERATOR, resolved

Pixels = npt.NDArray[np.uint8]
FIRST = 1 << 24  # numbers of scenes that no shard of training has
BATCH = 20
ORDERS, STEPS, GUIDANCE, SEEDS = ("confidence", "halton", "self_critic", "critic"), (4, 8, 18), (1.0, 3.0, 5.0), 5
FRAME_SHARE = 3  # a frame takes a third of the passes of a picture: most of it is as it was


class Asked(NamedTuple):
    """What is made, and how."""

    order: str = "confidence"
    steps: int = 18
    guidance: float = 3.0
    temperature: float = 1.0
    still_steps: int = 0
    coarse_levels: int = 0
    frame_steps: int = 0


class Maker(NamedTuple):
    """A generator with all it needs."""

    generator: MaskGIT
    tokenizer: Tokenizer
    size: tuple[int, int, int]
    asked: Asked
    critic: TokenCritic | None = None


def loaded(name: str, precision: str, critic: str | None = None) -> Maker:
    """The generator, its tokenizer, and the clips that it makes; the folder of a token critic beside it."""
    generator = MaskGIT.from_pretrained(name, precision=precision)
    folder = resolved(name, "config.json").parent
    about = trained_on(folder)
    assert about.size is not None
    assert about.num_frames is not None
    kept = {"guidance" if name == "guidance_scale" else name: value for name, value in about.sampling.items()}
    tokenizer = tokenizer_for(generator.vocab, beside=folder)
    judge = None if critic is None else TokenCritic.from_pretrained(critic)
    return Maker(generator, tokenizer, (about.num_frames, *about.size), Asked(**kept), judge)


def made(maker: Maker, prompts: list[str], asked: Asked, seed: int, precision: str) -> list[Pixels]:
    """A clip a prompt, uint8 (T, H, W, 3)."""
    [template] = maker.tokenizer.encode([torch.zeros(3, *maker.size)])
    clips: list[Pixels] = []
    for start in range(0, len(prompts), BATCH):
        told = prompts[start : start + BATCH]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            ids_BL = sample_from_still(
                maker.generator,
                grid=template.grid,
                still_steps=asked.still_steps,
                coarse_levels=asked.coarse_levels,
                frame_steps=asked.frame_steps,
                condition=maker.generator.condition(told),
                order=asked.order,
                steps=asked.steps,
                guidance_scale=asked.guidance,
                temperature=asked.temperature,
                critic=maker.critic if asked.order == "critic" else None,
                generator=torch.Generator().manual_seed(seed * 1000 + start),
            )
        tokens = [replace(template, ids_L=ids_L.numpy()) for ids_L in ids_BL]
        clips += [to_frames(video_CTHW) for video_CTHW in maker.tokenizer.decode(tokens)]
    return clips


def drawn(scenes: list[WorldScene], size: tuple[int, int, int]) -> list[Pixels]:
    """Real clips of the scenes."""
    return [render_clip(scene, *size).frames_THWC for scene in scenes]


def through(tokenizer: Tokenizer, clips: list[Pixels]) -> list[Pixels]:
    """The same, encoded and decoded."""
    return [
        to_frames(video_CTHW)
        for clip in clips
        for video_CTHW in tokenizer.decode(tokenizer.encode([to_video(clip.copy())]))
    ]


def counted(right_N: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """A share with its interval."""
    right, total = int(right_N.sum()), right_N.size
    return {"right": right, "of": total, "share": round(right / total, 4), "interval": wilson(right, total)}


def interval_of(means: list[Any]) -> tuple[float, float]:
    """Of the mean of five seeds, 95 %: Student's t with four degrees of freedom."""
    half = 2.776 * float(np.std(means, ddof=1)) / len(means) ** 0.5
    return round(float(np.mean(means)) - half, 4), round(float(np.mean(means)) + half, 4)


def judged(judge: Classifier, clips: list[Pixels], scenes: list[WorldScene]) -> dict[str, npt.NDArray[np.bool_]]:
    """Head -> whether each clip shows what its scene says."""
    truths = [labels(scene) for scene in scenes]
    right: dict[str, list[bool]] = {head: [] for head in HEADS}
    for start in range(0, len(clips), BATCH):
        videos = [torch.from_numpy(clip.copy()).permute(3, 0, 1, 2) for clip in clips[start : start + BATCH]]
        told = judge.predict(videos).predicted()
        for head in HEADS:
            right[head] += [truth[head] == one for truth, one in zip(truths[start:], told[head])]
    return {head: np.array(found) for head, found in right.items()}


def mask_of(clip: Pixels, colour: str, others: list[str]) -> npt.NDArray[np.bool_]:
    """(T, H, W): pixels nearer to a thing's colour than to those of other things and of the background."""
    pixels = clip.astype(np.float32)
    edge = np.concatenate([pixels[:, 0].reshape(-1, 3), pixels[:, -1].reshape(-1, 3), pixels[:, :, 0].reshape(-1, 3)])
    own = np.linalg.norm(pixels - np.array(COLOURS[colour]), axis=-1)
    away = np.linalg.norm(pixels - np.median(edge, axis=0), axis=-1)
    for other in others:
        away = np.minimum(away, np.linalg.norm(pixels - np.array(COLOURS[other]), axis=-1))
    return (own < 70) & (own < away)


def motion_of(mask_THW: npt.NDArray[np.bool_]) -> str | None:
    """What a thing does, by where its pixels are; ``still`` also for what turns on the spot. None: it is not there."""
    area_T = mask_THW.sum(axis=(1, 2))
    if np.median(area_T) < 12 or area_T.min() < 3:
        return None
    y, x = np.mgrid[: mask_THW.shape[1], : mask_THW.shape[2]]
    cx, cy = (np.array([np.median(axis[frame]) for frame in mask_THW]) for axis in (x, y))
    if area_T[-2:].mean() > 1.7 * area_T[:2].mean():
        return "grow"
    if np.ptp(cx) < 4 and np.ptp(cy) < 4:
        return "still"
    if np.ptp(cx) > 8 and np.ptp(cy) > 8:
        return "circle"
    if np.ptp(cx) > np.ptp(cy):
        return "right" if cx[-1] > cx[0] else "left"
    if abs(cy[-1] - cy[0]) < 0.6 * np.ptp(cy):
        return "bounce"
    return "down" if cy[-1] > cy[0] else "up"


def followed(clips: list[Pixels], scenes: list[WorldScene]) -> dict[str, npt.NDArray[np.bool_]]:
    """Of every thing and phase: whether it is there, and whether it does what it was told."""
    there, does = [], []
    for clip, scene in zip(clips, scenes):
        colours = [thing.colour for thing in scene.objects]
        for thing in scene.objects:
            mask_THW = mask_of(clip, thing.colour, [colour for colour in colours if colour != thing.colour])
            parts = np.array_split(mask_THW, len(thing.motions))
            for part, wanted in zip(parts, thing.motions):
                found = motion_of(part)
                there.append(found is not None)
                does.append(found == ("still" if wanted == "spin" else wanted))
    return {"there": np.array(there), "motion": np.array(does)}


SETS: dict[str, dict[str, Any]] = {
    "one thing, seen": {"num_objects": 1, "is_story": False, "combinations": "seen"},
    "one thing, held out": {"num_objects": 1, "is_story": False, "combinations": "held_out"},
    "two things": {"num_objects": 2, "is_story": False},
    "three things": {"num_objects": 3, "is_story": False},
    "stories": {"is_story": True},
}


def scenes_of(name: str, count: int) -> list[WorldScene]:
    """The first scenes of a set."""
    return [draw_scene(FIRST + number, **SETS[name]) for number in range(count)]


def scored(name: str, judge: Classifier, clips: list[Pixels], scenes: list[WorldScene]) -> dict[str, Any]:
    """By the judge where there is one thing, by the pixels where there are more."""
    found = judged(judge, clips, scenes) if name.startswith("one") else followed(clips, scenes)
    return {head: counted(right_N) for head, right_N in found.items()}


def main_scores(
    maker: Maker, judge: Classifier, asked: Asked, count: int, precision: str, names: list[str]
) -> dict[str, Any]:
    """Every set of these names: generated, and the ceilings."""
    told: dict[str, Any] = {}
    for name in names:
        scenes = scenes_of(name, count)
        prompts = [caption(scene, number, is_full=True) for number, scene in enumerate(scenes)]
        start = time.perf_counter()
        clips = made(maker, prompts, asked, 0, precision)
        seconds = time.perf_counter() - start
        real = drawn(scenes, maker.size)
        told[name] = {
            "generated": scored(name, judge, clips, scenes),
            "ceiling (drawn, through the tokenizer)": scored(name, judge, through(maker.tokenizer, real), scenes),
            "drawn": scored(name, judge, real, scenes),
            "seconds_per_clip": round(seconds / count, 3),
        }
        for kind, heads in told[name].items():
            if isinstance(heads, dict):
                print(f"{name:22} {kind:40}", *(f"{head} {100 * one['share']:.1f}" for head, one in heads.items()))
        print(f"{name:22} {seconds / count:.2f} s a clip", flush=True)
    return told


def passes(asked: Asked, steps: int) -> Asked:
    """So many for each picture, and a third of it for each frame that is drawn by itself."""
    frame_steps = max(1, round(steps / FRAME_SHARE)) if asked.frame_steps else 0
    return asked._replace(steps=steps, still_steps=steps if asked.still_steps else 0, frame_steps=frame_steps)


def table(maker: Maker, judge: Classifier, count: int, precision: str, orders: list[str]) -> list[dict[str, Any]]:
    """Order x steps x guidance over five seeds: all heads right together, each head, seconds."""
    scenes = [scene for name in list(SETS)[:2] for scene in scenes_of(name, (count + 1) // 2)]
    prompts = [caption(scene, number, is_full=True) for number, scene in enumerate(scenes)]
    rows = []
    for order in orders:
        for steps in STEPS:
            for guidance in GUIDANCE:
                asked = passes(maker.asked, steps)._replace(order=order, guidance=guidance)
                start = time.perf_counter()
                found = [judged(judge, made(maker, prompts, asked, seed, precision), scenes) for seed in range(SEEDS)]
                seconds = (time.perf_counter() - start) / SEEDS / len(scenes)
                heads = {head: np.concatenate([one[head] for one in found]) for head in HEADS}
                means = [np.mean([right_N.mean() for right_N in one.values()]) for one in found]
                row = {**asked._asdict(), "all": counted(np.stack(list(heads.values())).all(0))}
                row |= {head: counted(right_N)["share"] for head, right_N in heads.items()}
                row |= {"mean": round(float(np.mean(means)), 4), "mean_95": interval_of(means)}
                row |= {"seconds_per_clip": round(seconds, 3)}
                rows.append(row)
                print(row, flush=True)
    return rows


FOLLOWS = {
    "left": ("right", "still", "grow"),
    "right": ("left", "still", "grow"),
    "up": ("down", "still", "grow"),
    "down": ("up", "still", "grow"),
    "still": ("left", "right", "up", "down", "circle", "bounce", "grow", "spin"),
    "spin": ("left", "right", "circle", "bounce", "grow"),
    "circle": ("left", "right", "up", "down", "spin", "bounce"),
    "bounce": ("left", "right", "spin", "still", "circle"),
}
"""What a thing may do after what, so that it stays in the picture; growing comes last."""


def storyboards(count: int) -> list[list[WorldScene]]:
    """Three scenes each of one thing; no combination is held out, no motion comes twice in a row."""
    boards: list[list[WorldScene]] = []
    number = FIRST + (1 << 20)
    while len(boards) < count:
        scene, rng = draw_scene(number, num_objects=1, is_story=False), np.random.default_rng(number)
        number += 1
        [thing] = scene.objects
        kinds = [thing.motions[0]]
        while len(kinds) < 3 and kinds[-1] in FOLLOWS:
            kinds.append(str(rng.choice(FOLLOWS[kinds[-1]])))
        is_seen = not any(is_held_out(thing.shape, thing.colour, kind) for kind in kinds)
        if len(kinds) == 3 and is_seen and (thing.shape not in ("circle", "ring") or "spin" not in kinds):
            moved = [replace(thing, moves=(Move(kind=kind),)) for kind in kinds]
            boards.append([replace(scene, objects=(one,)) for one in moved])
    return boards


def boards_scores(maker: Maker, judge: Classifier, asked: Asked, count: int) -> dict[str, Any]:
    """Scenes against their own prompts, and how large the step across a border is."""
    fps, boards = 8.0, storyboards(count)
    clips: list[Pixels] = []
    borders, inside = [], []
    for number, scenes in enumerate(boards):
        fresh = [maker.size[0]] + [maker.size[0] - 1] * (len(scenes) - 1)
        board = Storyboard(
            scenes=[
                Scene(prompt=caption(scene, number, is_full=True), seconds=frames / fps, frames_carried=1)
                for scene, frames in zip(scenes, fresh)
            ],
            size=maker.size[1:],
            fps=fps,
            window_frames=maker.size[0],
            seed=number,
            guidance_scale=asked.guidance,
            steps=asked.steps,
            order=asked.order,  # type: ignore[arg-type]
            temperature=asked.temperature,
            still_steps=asked.still_steps,
            coarse_levels=asked.coarse_levels,
            frame_steps=asked.frame_steps,
        )
        parts = [to_frames(part.video_CTHW) for part in make_scenes(maker.generator, maker.tokenizer, None, board)]
        whole = np.concatenate(parts)
        steps = np.abs(np.diff(whole.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))
        ends = np.cumsum(fresh)[:-1] - 1  # steps from the last frame of a scene to the first of the next
        borders += steps[ends].tolist()
        inside += np.delete(steps, ends).tolist()
        starts = [0, *(ends).tolist()]
        clips += [whole[start : start + maker.size[0]] for start in starts]
    right = judged(judge, clips, [scene for scenes in boards for scene in scenes])
    heads = {head: counted(right_N) for head, right_N in right.items()}
    return {
        "storyboards": count,
        "scenes": heads | {"all": counted(np.stack(list(right.values())).all(0))},
        "motion by scene": [counted(right["motion"][place::3]) for place in range(3)],
        "border": round(float(np.mean(borders)), 4),
        "inside": round(float(np.mean(inside)), 4),
        "ratio": round(float(np.mean(borders) / np.mean(inside)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=GENERATOR)
    parser.add_argument("--judge", default="vivit-motions")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    for name, value in Asked()._asdict().items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value))
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--orders", default=",".join(ORDERS[:3]), help="of the table, with commas")
    parser.add_argument("--critic", help="folder of a token critic, for the order critic")
    parser.add_argument("--storyboards", action="store_true")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    maker, judge = loaded(args.model, args.precision, args.critic), load_classifier(args.judge)
    said = {name: value for name, value in vars(args).items() if name in Asked._fields and value is not None}
    asked = maker.asked._replace(**said)
    told: dict[str, Any] = {"model": args.model, "judge": args.judge, "prompts": args.prompts, **asked._asdict()}
    if args.table:
        told["table"] = table(maker, judge, args.prompts, args.precision, args.orders.split(","))
    elif args.storyboards:
        told |= boards_scores(maker, judge, asked, min(args.prompts, 20))
        print(json.dumps(told, indent=1))
    else:
        told["sets"] = main_scores(maker, judge, asked, args.prompts, args.precision, args.sets)
    if args.output is not None:
        args.output.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
