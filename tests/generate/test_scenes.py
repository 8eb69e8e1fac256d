"""Scenes: lengths, carried frames, cuts, windows, seeds, every kind of tokenizer, bounded history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sampled import Judge, Toy
from test_prime import TINY, clip
from torch import Tensor

from tokenreel.errors import InputError, MismatchError
from tokenreel.generate import scenes as module
from tokenreel.generate.prime import ids_of
from tokenreel.generate.sample import SampleStep
from tokenreel.generate.scenes import SceneProgress, make_scenes, make_video, steps_stand_alone
from tokenreel.generate.storyboard import Scene, Storyboard
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.media.pixels import to_frames
from tokenreel.tokenizers import CViViT, TiTok, TiTokVideo, load
from tokenreel.types import Tokens

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> CViViT:
    return CViViT.untrained(TINY)


@pytest.fixture
def model(tokenizer: CViViT) -> Toy:
    return Toy(Vocabulary.of(tokenizer))


def board(*scenes: Scene, **options: Any) -> Storyboard:
    shared: dict[str, Any] = {"size": (16, 24), "fps": 4, "window_frames": 9, "frames_carried": 3, "steps": 3}
    return Storyboard(scenes=scenes, **{**shared, "guidance_scale": 1.0, **options})


def scene(seconds: float, prompt: str = "words", **options: Any) -> Scene:
    return Scene(prompt=prompt, seconds=seconds, **options)


def made(model: Any, tokenizer: Any, storyboard: Storyboard, **options: Any) -> Tensor:
    return torch.cat([part.video_CTHW for part in make_scenes(model, tokenizer, None, storyboard, **options)], dim=1)


class Watched:
    """A tokenizer that remembers what it encoded and decoded."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.encoded: list[Tensor] = []
        self.decoded: list[tuple[Tokens, Tensor]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def encode(self, videos: Sequence[Tensor]) -> list[Tokens]:
        self.encoded += videos
        return list(self.inner.encode(videos))

    def decode(self, tokens: Sequence[Tokens]) -> list[Any]:
        videos = list(self.inner.decode(tokens))
        self.decoded += zip(tokens, videos)
        return videos


def test_scenes_have_their_lengths_and_frames_their_places(model: Toy, tokenizer: CViViT) -> None:
    storyboard = board(scene(1.0), scene(5.5, "other"), scene(0.25), scene(3, frames_carried=5))
    parts = list(make_scenes(model, tokenizer, None, storyboard))
    for number, count in enumerate([4, 22, 1, 12], 1):
        assert sum(part.video_CTHW.shape[1] for part in parts if part.scene == number) == count
    assert [part.start_frame for part in parts] == [0, 4, 10, 16, 22, 26, 27, 31, 37]
    for part in parts:
        assert part.video_CTHW.shape[::2] == (3, 16)
        assert part.video_CTHW.dtype == torch.float32
        assert float(part.video_CTHW.abs().max()) <= 1


def test_a_window_goes_on_from_the_last_frames_encoded_anew(model: Toy, tokenizer: CViViT) -> None:
    """The known ids of a window are those of the carried frames as a clip of their own, first frame alone."""
    watched = Watched(tokenizer)
    video = made(model, watched, board(scene(2.25), scene(3, frames_carried=5)))
    template, *carried = watched.encoded
    assert template.shape == (3, 9, 16, 24)
    starts = [9, 13, 19]  # frames made before each window but the first
    for frames, start, length in zip(carried, starts, [5, 3, 3], strict=False):
        assert torch.equal(frames, video[:, start - length : start])
        ids = ids_of(tokenizer.encode([frames]))[0]
        tokens, decoded = watched.decoded[starts.index(start) + 1]
        assert torch.equal(torch.from_numpy(tokens.ids_L.astype(np.int64))[: len(ids)], ids)
        fresh = decoded[:, length : length + 6]
        end = min(video.shape[1], start + (9 - length))
        assert torch.equal(video[:, start:end], fresh[:, : end - start])


def test_a_cut_starts_from_nothing(model: Toy, tokenizer: CViViT) -> None:
    watched = Watched(tokenizer)
    cut = scene(2.25, "second", frames_carried=0, seed=5)
    video = made(model, watched, board(scene(2.25), cut))
    assert len(watched.encoded) == 1  # the template
    assert torch.equal(video[:, 9:], made(model, tokenizer, board(cut)))


def test_equal_seeds_equal_videos(model: Toy, tokenizer: CViViT) -> None:
    first = board(scene(2), scene(3, "b"))
    video = made(model, tokenizer, first)
    assert torch.equal(video, made(model, tokenizer, first))
    assert not torch.equal(video[:, :8], made(model, tokenizer, replace(first, seed=1))[:, :8])
    later = made(model, tokenizer, board(scene(2), scene(3, "b", seed=1)))
    assert torch.equal(video[:, :8], later[:, :8])
    assert not torch.equal(video[:, 8:], later[:, 8:])
    other_words = made(model, tokenizer, board(scene(2), scene(3, "quite other words")))
    assert torch.equal(video[:, :8], other_words[:, :8])
    assert not torch.equal(video[:, 8:], other_words[:, 8:])


def test_windows_of_a_scene_differ(model: Toy, tokenizer: CViViT) -> None:
    parts = [part.video_CTHW for part in make_scenes(model, tokenizer, None, board(scene(5.25), frames_carried=0))]
    assert [part.shape[1] for part in parts] == [9, 9, 3]
    assert not torch.equal(parts[0], parts[1])


def test_frames_to_go_on_from(model: Toy, tokenizer: CViViT) -> None:
    """Image to video, and continuation: the last whole steps, at most those that are carried."""
    for frames, taken in ((1, 1), (2, 1), (3, 3), (4, 3), (12, 3)):
        start, watched = clip(frames, 16, 24), Watched(tokenizer)
        video = made(model, watched, board(scene(1)), start_CTHW=start)
        assert video.shape[1] == 4
        assert torch.equal(watched.encoded[1], start[:, -taken:])
        ids = ids_of(tokenizer.encode([start[:, -taken:]]))[0]
        decoded = torch.from_numpy(watched.decoded[0][0].ids_L.astype(np.int64))
        assert torch.equal(decoded[: len(ids)], ids)
    as_bytes = to_frames(clip(3, 16, 24)).transpose(3, 0, 1, 2)
    assert made(model, tokenizer, board(scene(1)), start_CTHW=as_bytes).shape[1] == 4
    with pytest.raises(InputError, match=r"start_CTHW must be \(3, T, 16, 24\)"):
        made(model, tokenizer, board(scene(1)), start_CTHW=clip(1, 8, 8))
    with pytest.raises(InputError, match="scene 1: frames_carried is 0"):
        made(model, tokenizer, board(scene(1, frames_carried=0)), start_CTHW=clip(1, 16, 24))
    with pytest.raises(InputError, match=r"1 frame\(s\) is one step .* take window_frames of 3 or more"):
        short = board(scene(1), window_frames=1, frames_carried=None)
        made(model, tokenizer, short, start_CTHW=clip(1, 16, 24))


def test_progress_and_steps_are_told(model: Toy, tokenizer: CViViT) -> None:
    told: list[SceneProgress] = []
    steps: list[SampleStep] = []
    made(model, tokenizer, board(scene(1), scene(3)), progress=told.append, callback=steps.append)
    assert told == [
        SceneProgress(1, 2, 0, 16, 0),
        SceneProgress(2, 2, 4, 16, 1),
        SceneProgress(2, 2, 10, 16, 2),
        SceneProgress(2, 2, 16, 16, 3),
    ]
    assert len(steps) == 9


def test_steps_guidance_and_critic_of_scenes(tokenizer: CViViT) -> None:
    model, judge = Toy(Vocabulary.of(tokenizer)), Judge(30)
    storyboard = board(scene(1, steps=2), scene(1, guidance_scale=2.0), order="critic")
    made(model, tokenizer, storyboard, critic=judge)
    assert [rows for rows, _ in model.calls if rows] == [1, 1, 2, 2, 2]
    assert judge.asked == 1 + 2


@pytest.mark.parametrize("name", ["raw", "titok", "titok_video", "cvivit"])
def test_any_tokenizer(name: str) -> None:
    """1-D tokens lie on (segments, 1, queries), bytes on (steps, 1, bytes)."""
    size, window = (16, 16), 6
    if name == "raw":
        tokenizer: Any = load("raw:2,8,8")
    elif name == "cvivit":
        tokenizer = CViViT.untrained(replace(TINY, causal=False))
    else:
        family = {"titok": TiTok, "titok_video": TiTokVideo}[name]
        tokenizer = family.untrained("tiny")
        size, window = (32, 32), 3 if name == "titok" else 2 * tokenizer.config.max_frames
    model = Toy(Vocabulary.of(tokenizer))
    storyboard = board(scene(window / 4 + 0.5), size=size, window_frames=window, frames_carried=None, steps=2)
    assert made(model, tokenizer, storyboard).shape == (3, window + 2, *size)


def test_ids_slide_where_steps_stand_alone() -> None:
    tokenizer = load("raw:2,8,8")
    assert steps_stand_alone(tokenizer, (16, 16))
    assert not steps_stand_alone(CViViT.untrained(TINY), (16, 16))
    alone = CViViT.untrained(replace(TINY, patch_size=(1, 8, 8)))  # first frame as all others, but not independent
    assert not steps_stand_alone(alone, (16, 16))
    watched = Watched(tokenizer)
    storyboard = board(scene(4), size=(16, 16), window_frames=6, frames_carried=2, steps=2)
    made(Toy(Vocabulary.of(tokenizer)), watched, storyboard)
    assert len(watched.encoded) == 3  # two to learn that steps stand alone, and the template
    step = 2 * 16 * 16 * 3
    for (before, _), (after, _) in zip(watched.decoded, watched.decoded[1:]):
        assert np.array_equal(before.ids_L[-step:], after.ids_L[:step])


def test_history_is_bounded(model: Toy, tokenizer: CViViT, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    add = module._History.add

    def watched(self: Any, video_CTHW: Tensor, ids_L: Tensor | None) -> None:
        add(self, video_CTHW, ids_L)
        lengths.append(self.video_CTHW.untyped_storage().nbytes())

    monkeypatch.setattr(module._History, "add", watched)
    made(model, tokenizer, board(scene(30, steps=1), scene(2, frames_carried=5)))
    assert len(lengths) > 20
    assert max(lengths) == 3 * 5 * 16 * 24 * 4


def test_one_line(model: Toy, tokenizer: CViViT) -> None:
    options: dict[str, Any] = {"size": (16, 24), "fps": 4, "window_frames": 9, "steps": 3, "guidance_scale": 2.0}
    found = make_video("words", model=model, tokenizer=tokenizer, seconds=3, seed=4, **options)
    assert found.size == (12, 16, 24)
    assert found.fps == 4
    assert found.pts_seconds.tolist() == [frame / 4 for frame in range(12)]
    storyboard = board(scene(3), seed=4, frames_carried=None, guidance_scale=2.0)
    assert np.array_equal(found.frames_THWC, to_frames(made(model, tokenizer, storyboard)))


def test_an_image_is_a_video_of_one_frame(model: Toy, tokenizer: CViViT) -> None:
    found = make_video(
        "words", model=model, tokenizer=tokenizer, size=(16, 24), seconds=1, fps=1, window_frames=1, guidance_scale=1.0
    )
    assert found.size == (1, 16, 24)


@pytest.mark.parametrize(
    ("storyboard", "words"),
    [
        (board(scene(1), scene(1, frames_carried=4)), "scene 2: frames_carried must fill whole steps .* take 3 or 5"),
        (board(scene(1, frames_carried=9)), r"scene 1: frames_carried must be less than window_frames \(9\)"),
        (board(scene(1), frames_carried=2), "frames_carried must fill whole steps .* take 1 or 3"),
        (board(scene(1), scene(0.01)), "scene 2: 0.01 seconds are less than a frame"),
        (board(scene(1), order="critic"), "needs a critic"),
    ],
)
def test_errors_come_before_work(model: Toy, tokenizer: CViViT, storyboard: Storyboard, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_scenes(model, tokenizer, None, storyboard)


def test_a_model_of_another_tokenizer_is_refused(tokenizer: CViViT) -> None:
    with pytest.raises(MismatchError, match="was made for the ids of cvivit"):
        make_scenes(Toy(Vocabulary.of(CViViT.untrained(TINY, seed=1))), tokenizer, None, board(scene(1)))
