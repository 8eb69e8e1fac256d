"""The captioned world and natural clips on one thread: clips a second, beside the floor of what has to be written.

    python benchmarks/bench_render.py [--quick] [--json benchmarks/results/render.json]

Outputs are checked first: equal seeds give equal bytes, and the floor's boxes lie where the things are. Times are CPU
seconds (time.process_time) of whole passes over the same seeds, median and spread of the passes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import PIL

from tokenreel.render import caption, draw_scene, natural_clip, render_clip, tracks
from tokenreel.render.backgrounds import paint
from tokenreel.render.world import object_poses

ROWS: list[dict[str, object]] = []


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def rate(name: str, call, items, repeats: int) -> float:
    """Median clips a CPU second of ``call`` over all items; told and kept."""
    for item in items[:10]:
        call(item)
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        for item in items:
            call(item)
        rates.append(len(items) / (time.process_time() - start))
    median = statistics.median(rates)
    print(f"{name}: {median:.0f} clips/s ({min(rates):.0f} to {max(rates):.0f})")
    ROWS.append({"name": name, "clips_per_second": median, "low": min(rates), "high": max(rates)})
    return median


def floor(job) -> np.ndarray:
    """The least that any renderer here must do: the background 16 times, and one blend of a box around every thing."""
    backdrop, boxes, alphas, overs = job
    frames = np.repeat(backdrop[None], 16, axis=0)
    for (top, left, side), alpha, over in zip(boxes, alphas, overs):
        box = np.stack([frame[r : r + side, c : c + side] for frame, r, c in zip(frames, top, left)]).astype(np.float32)
        box += (over - box) * alpha
        for frame, r, c, drawn in zip(frames, top, left, box.astype(np.uint8)):
            frame[r : r + side, c : c + side] = drawn
    return frames


def floor_job(scene):
    """What ``floor`` is given: all that a renderer would have to work out."""
    boxes, alphas, overs = [], [], []
    for thing, centre, pose in zip(scene.objects, tracks(scene), object_poses(scene, 16)):
        side = min(64, int(2 * thing.radius * 32 * pose.scale.max()) + 3)
        left, top = (np.clip(centre[:, axis] - side / 2, 0, 64 - side).astype(int) for axis in (0, 1))
        boxes.append((top.tolist(), left.tolist(), side))
        alphas.append(np.full((16, side, side, 3), 0.5, np.float32))
        overs.append(np.full((16, side, side, 3), 200, np.float32))
    return paint(scene.background, scene.seed).draw(64, 64), boxes, alphas, overs


def check(scenes) -> None:
    for seed, scene in enumerate(scenes[:100]):
        assert scene == draw_scene(seed)
        drawn = render_clip(scene).frames_THWC
        assert drawn.tobytes() == render_clip(scene).frames_THWC.tobytes()
        outside = floor(floor_job(scene)) == floor_job(scene)[0][None]
        assert (drawn == floor_job(scene)[0][None])[outside.all(axis=-1)].mean() > 0.98, (
            "things lie in the floor's boxes"
        )
    for seed in range(5):
        assert natural_clip(seed).frames_THWC.tobytes() == natural_clip(seed).frames_THWC.tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    count, repeats = (100, 3) if args.quick else (400, 7)
    scenes = [draw_scene(seed) for seed in range(count)]
    check(scenes)
    about = {"cpu": cpu_name(), "python": platform.python_version(), "numpy": np.__version__, "pillow": PIL.__version__}
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    rate("floor 64x64x16", floor, [floor_job(scene) for scene in scenes], repeats)
    for things in (1, 2, 3):
        some = [draw_scene(seed, num_objects=things) for seed in range(count)]
        rate(f"render_clip 64x64x16, {things} things", render_clip, some, repeats)
    rate("render_clip 64x64x16", render_clip, scenes, repeats)
    rate("render_clip 128x128x17", lambda scene: render_clip(scene, 17, 128, 128), scenes, repeats)
    rate("draw_scene", draw_scene, range(count), repeats)
    rate("caption", lambda scene: caption(scene, 0), scenes, repeats)
    rate(
        "draw_scene, caption and render_clip 64x64x16",
        lambda seed: (caption(scene := draw_scene(seed), seed), render_clip(scene)),
        range(count),
        repeats,
    )
    few = range(count // 5)
    rate("natural_clip 64x64x16", natural_clip, few, repeats)
    rate("natural_clip 128x128x17", lambda seed: natural_clip(seed, 17, 128, 128), few, repeats)
    rate("natural_clip 128x128x1", lambda seed: natural_clip(seed, 1, 128, 128), few, repeats)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": about, "rows": ROWS}, indent=1))


if __name__ == "__main__":
    main()
