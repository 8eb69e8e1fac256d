"""Storyboards to one continuous video of any length, window after window, in bounded memory.

Each window goes on from the last frames of what came before (Phenaki, arXiv 2210.02399, section 2.3 and figure 1).

Letters: C channels, T frames, H W pixels, B rows (1), L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.media.pixels import to_frames, to_video
from tokenreel.tokenizers.base import Tokenizer
from tokenreel.types import Clip, Grid, Tokens

from .prime import Known, Timing, ids_of, prime
from .sample import MaskedModel, SampleStep, scorer_of
from .sample_orders import Order, OrderKind
from .sample_still import sample_from_still
from .storyboard import Scene, Storyboard
from .vocabulary import grid_of

if TYPE_CHECKING:
    from .condition import Condition
    from .critic import Scorer
    from .text import TextEncoder

__all__ = ["PromptedModel", "ScenePart", "SceneProgress", "make_scenes", "make_video", "steps_stand_alone"]


class PromptedModel(MaskedModel, Protocol):
    """A ``MaskedModel`` that reads prompts; ``MaskGIT`` is one."""

    def condition(
        self, prompts: Sequence[str] | None = None, *, encoder: TextEncoder | None = None
    ) -> Condition | None:
        """Prompts -> ``Condition``, by the encoder inside or by ``encoder``."""


class ScenePart(NamedTuple):
    """The next frames of a video.

    Attributes:
        scene: number of the scene, from 1.
        start_frame: place of its first frame in the whole video.
        video_CTHW: (3, T, H, W) float32 in [-1, 1], on the CPU. Frames that were carried over are not repeated.
    """

    scene: int
    start_frame: int
    video_CTHW: Tensor


class SceneProgress(NamedTuple):
    """How far a video is: told before each window, and after the last.

    Attributes:
        scene, num_scenes: the scene that is made, from 1.
        frames_done, num_frames: of the whole video.
        window: windows made so far.
    """

    scene: int
    num_scenes: int
    frames_done: int
    num_frames: int
    window: int


def make_scenes(
    model: PromptedModel,
    tokenizer: Tokenizer,
    text: TextEncoder | None,
    storyboard: Storyboard,
    *,
    progress: Callable[[SceneProgress], object] | None = None,
    start_CTHW: Any = None,
    critic: Scorer | None = None,
    callback: Callable[[SampleStep], object] | None = None,
) -> Iterator[ScenePart]:
    """The video of a storyboard, part by part, one window of the model each.

    A window begins with the last frames of what came before, encoded as a clip of their own: so a causal tokenizer
    finds its first frame alone, as it was trained. Their ids are known and stay as they are. Where every step of a
    tokenizer stands alone, ids slide over without being encoded again. Every window has the full length that the model
    was trained on; what a scene does not need of its last one is dropped. Memory is that of one window.

    Args:
        model: tied to this tokenizer.
        tokenizer: any.
        text: the encoder of the prompts, or None for the one inside the model.
        storyboard: what happens.
        progress: is told how far the video is.
        start_CTHW: frames (3, T, H, W) that the first scene goes on from, of the storyboard's size; at most its
            ``frames_carried``, the last whole steps of them. One frame is image to video. They are not repeated.
        critic: for the orders that ask one.
        callback: sees each sampling step of each window.

    Raises:
        InputError: a field of the storyboard does not fit model or tokenizer; the scene and field are told.
    """
    windows = _Windows(model, tokenizer, storyboard, critic, callback)
    counts = storyboard.frame_counts()
    carries = [windows.carried(scene, number) for number, scene in enumerate(storyboard.scenes, 1)]
    history = _History(windows.timing, most=max(*carries, windows.slide))
    if start_CTHW is not None:
        history.start(start_CTHW, storyboard.size, windows.timing)
        if carries[0] == 0:
            raise InputError(windows.no_carry())
    return _parts(windows, storyboard, text, counts, carries, history, progress)


def make_video(
    prompt: str,
    *,
    model: PromptedModel,
    tokenizer: Tokenizer,
    size: tuple[int, int],
    text: TextEncoder | None = None,
    seconds: float = 2.0,
    fps: float = 8.0,
    window_frames: int = 17,
    frames_carried: int | None = None,
    seed: int = 0,
    guidance_scale: float = 3.0,
    steps: int = 18,
    order: OrderKind = "confidence",
    temperature: float = 1.0,
    start_CTHW: Any = None,
    critic: Scorer | None = None,
) -> Clip:
    """A clip of one prompt: a storyboard of one scene, as ``make_scenes`` makes it, in memory.

    Args: as the fields of ``Storyboard`` and the arguments of ``make_scenes``. ``size`` is (height, width).
    """
    storyboard = Storyboard(
        scenes=(Scene(prompt=prompt, seconds=seconds),),
        size=size,
        fps=fps,
        window_frames=window_frames,
        frames_carried=frames_carried,
        seed=seed,
        guidance_scale=guidance_scale,
        steps=steps,
        order=order,
        temperature=temperature,
    )
    parts = make_scenes(model, tokenizer, text, storyboard, start_CTHW=start_CTHW, critic=critic)
    frames_THWC = np.concatenate([to_frames(part.video_CTHW) for part in parts])
    return Clip(frames_THWC=frames_THWC, pts_seconds=np.arange(len(frames_THWC)) / fps, fps=fps, source=prompt)


def steps_stand_alone(tokenizer: Tokenizer, size: tuple[int, int]) -> bool:
    """Whether a step of the grid gets the same ids wherever it lies, found by encoding noise of (height, width)."""
    timing = Timing.of(tokenizer)
    if timing.first_frames != timing.step_frames:
        return False
    noise = torch.rand(3, 2 * timing.step_frames, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    both, alone = tokenizer.encode([noise, noise[:, timing.step_frames :]])
    return bool(np.array_equal(both.ids_L[both.num_tokens // 2 :], alone.ids_L))


@dataclass(slots=True)
class _History:
    """The last frames of the video so far, and their ids where those may be used again."""

    timing: Timing
    most: int
    video_CTHW: Tensor | None = None
    ids_L: Tensor | None = None

    @property
    def num_frames(self) -> int:
        """Frames to go on from."""
        return 0 if self.video_CTHW is None else self.video_CTHW.shape[1]

    def start(self, start_CTHW: Any, size: tuple[int, int], timing: Timing) -> None:
        """Begin with given frames."""
        shape = tuple(getattr(start_CTHW, "shape", ()))
        if len(shape) != 4 or shape[0] != 3 or shape[2:] != size:
            raise InputError(f"start_CTHW must be (3, T, {size[0]}, {size[1]}), the storyboard's size, got {shape}")
        if timing.whole(shape[1]) == 0:
            raise InputError(
                f"start_CTHW has {shape[1]} frame(s), one step of this tokenizer is {timing.first_frames}; repeat them"
            )
        self.add(_float_video(start_CTHW), None)

    def add(self, video_CTHW: Tensor, ids_L: Tensor | None) -> None:
        """Frames that follow, and the ids of the whole window that ends with them, if its steps stand alone."""
        if self.video_CTHW is not None:
            video_CTHW = torch.cat([self.video_CTHW, video_CTHW], dim=1)
        self.video_CTHW = video_CTHW[:, max(0, video_CTHW.shape[1] - self.most) :].clone()
        self.ids_L = ids_L


class _Windows:
    """One window after another: what all windows of a storyboard share."""

    def __init__(
        self,
        model: PromptedModel,
        tokenizer: Tokenizer,
        storyboard: Storyboard,
        critic: Scorer | None,
        callback: Callable[[SampleStep], object] | None,
    ) -> None:
        model.vocab.check(tokenizer)
        self.model, self.tokenizer, self.storyboard = model, tokenizer, storyboard
        self.critic = scorer_of(Order(kind=storyboard.order), model, critic)
        self.callback = callback
        self.timing = Timing.of(tokenizer)
        self.slide = self._slide()
        (self.template,) = tokenizer.encode([torch.zeros(3, storyboard.window_frames, *storyboard.size)])
        self.grid: Grid = grid_of(self.template, segment_steps=tokenizer.segment_steps)
        self.is_sliding = self.slide > 0 and steps_stand_alone(tokenizer, storyboard.size)

    def condition(self, scene: Scene, text: TextEncoder | None) -> Condition | None:
        """Of its prompt."""
        with torch.no_grad():
            return self.model.condition([scene.prompt], encoder=text)

    def carried(self, scene: Scene, number: int) -> int:
        """Frames that the first window of a scene goes on from."""
        if scene.frames_carried is None:
            return self.slide
        return self._checked(scene.frames_carried, f"scene {number}: frames_carried")

    def no_carry(self) -> str:
        """Why the first scene cannot go on from anything."""
        board = self.storyboard
        if board.scenes[0].frames_carried is None and board.frames_carried is None:
            return (
                f"a window of {board.window_frames} frame(s) is one step of this tokenizer's grid, so it cannot go on "
                f"from frames; take window_frames of {self.timing.frames(2)} or more, if the generator knows such ones"
            )
        return "scene 1: frames_carried is 0, a cut, but there are frames to go on from; leave it out"

    def known(self, history: _History, carried: int) -> Known | None:
        """The first steps of the next window."""
        if not carried or history.video_CTHW is None:
            return None
        steps = self.timing.steps(carried)
        cells = self.template.num_tokens // self.grid.t
        if history.ids_L is not None and len(history.ids_L) >= steps * cells:
            return prime(history.ids_L[None, -steps * cells :], grid=self.grid)
        clip_CTHW = history.video_CTHW[:, -carried:].contiguous()
        return prime(ids_of(self.tokenizer.encode([clip_CTHW])), grid=self.grid)

    def sampled(self, scene: Scene, condition: Condition | None, known: Known | None, seed: int) -> Tensor:
        """Ids (L,) of one window."""
        board = self.storyboard
        ids_BL = sample_from_still(
            self.model,
            grid=self.grid,
            still_steps=board.still_steps,
            coarse_levels=board.coarse_levels if board.still_steps else 0,
            frame_steps=board.frame_steps,
            condition=condition,
            order=board.order,
            steps=board.steps if scene.steps is None else scene.steps,
            guidance_scale=board.guidance_scale if scene.guidance_scale is None else scene.guidance_scale,
            temperature=board.temperature,
            known_ids=None if known is None else known.ids_BL,
            is_masked=None if known is None else known.is_masked_BL,
            critic=self.critic,
            generator=torch.Generator().manual_seed(seed),
            callback=self.callback,
        )
        return ids_BL[0].cpu()

    def decoded(self, ids_L: Tensor) -> Tensor:
        """(3, T, H, W) in [-1, 1]."""
        tokens: Tokens = replace(self.template, ids_L=ids_L.numpy())
        return _float_video(self.tokenizer.decode([tokens])[0])

    def usable_ids(self, ids_L: Tensor, num_frames: int) -> Tensor | None:
        """The ids of the first frames of a window, where the next one may begin with them as they are."""
        if not self.is_sliding or self.timing.whole(num_frames) != num_frames:
            return None
        return ids_L[: self.timing.steps(num_frames) * (len(ids_L) // self.grid.t)]

    def _slide(self) -> int:
        """Frames that windows within a scene go on from."""
        board = self.storyboard
        if board.frames_carried is not None:
            return self._checked(board.frames_carried, "frames_carried")
        third = self.timing.whole(max(self.timing.first_frames, board.window_frames // 3))
        return third if third < board.window_frames else 0

    def _checked(self, frames: int, name: str) -> int:
        if frames == 0:
            return 0
        self.timing.check_whole(frames, name)
        if frames >= self.storyboard.window_frames:
            raise InputError(
                f"{name} must be less than window_frames ({self.storyboard.window_frames}), which holds the carried "
                f"frames and the new ones; got {frames}"
            )
        return frames


def _parts(
    windows: _Windows,
    storyboard: Storyboard,
    text: TextEncoder | None,
    counts: list[int],
    carries: list[int],
    history: _History,
    progress: Callable[[SceneProgress], object] | None,
) -> Iterator[ScenePart]:
    timing, done, made = windows.timing, 0, 0
    tell = progress if progress is not None else lambda seen: None
    for number, (scene, count) in enumerate(zip(storyboard.scenes, counts), 1):
        condition = windows.condition(scene, text)
        left, window = count, 0
        while left:
            tell(SceneProgress(number, len(counts), done, sum(counts), made))
            wanted = carries[number - 1] if window == 0 else windows.slide
            carried = timing.whole(min(wanted, history.num_frames))
            known = windows.known(history, carried)
            ids_L = windows.sampled(scene, condition, known, _seed(storyboard, scene, number, window))
            used = min(left, storyboard.window_frames - carried)
            fresh_CTHW = windows.decoded(ids_L)[:, carried : carried + used].clone()
            history.add(fresh_CTHW, windows.usable_ids(ids_L, carried + used))
            yield ScenePart(number, done, fresh_CTHW)
            done, left, window, made = done + used, left - used, window + 1, made + 1
    tell(SceneProgress(len(counts), len(counts), done, sum(counts), made))


def _seed(storyboard: Storyboard, scene: Scene, number: int, window: int) -> int:
    """A stream of its own for each window; a scene with a seed does not depend on where it stands."""
    words = [0, storyboard.seed, number, window] if scene.seed is None else [1, scene.seed, window]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _float_video(video_CTHW: Any) -> Tensor:
    """Any tokenizer's pixels as float32 (3, T, H, W) in [-1, 1] on the CPU."""
    if isinstance(video_CTHW, Tensor) and video_CTHW.is_floating_point():
        return video_CTHW.detach().to("cpu", torch.float32)
    array = video_CTHW.cpu().numpy() if isinstance(video_CTHW, Tensor) else video_CTHW
    if array.dtype != np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    return to_video(rearrange(array, "C T H W -> T H W C"))
