from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenreel.errors import InputError
from tokenreel.media.frames import Chooser, Selection, strided_clips, uniform_indices
from tokenreel.media.info import steady_fps

counts = st.integers(1, 300)


def chosen(selection: Selection, pts: list[float], last_duration: float = 0.04) -> list[tuple[int, float]]:
    """(frame, time) of everything that is wanted, asked as a reader asks."""
    chooser, wanted = Chooser(selection), []
    for index, seconds in enumerate(pts):
        following = pts[index + 1] if index + 1 < len(pts) else None
        wanted += [(index, time) for time in chooser.wanted(seconds, following, last_duration)]
        if chooser.is_done:
            break
    return wanted


@given(counts, st.integers(1, 40))
def test_every_takes_the_first_and_every_nth(num_frames: int, every: int) -> None:
    pts = [index * 0.04 for index in range(num_frames)]
    assert [index for index, _ in chosen(Selection(every=every), pts)] == list(range(0, num_frames, every))


@given(st.lists(st.integers(1, 200), min_size=1, max_size=60), st.integers(0, 3000), st.integers(1, 3000), counts)
def test_a_range_and_a_limit(steps: list[int], start: int, span: int, limit: int) -> None:
    pts = list(np.cumsum([0, *steps]) / 1000)
    want = Selection(start_seconds=start / 1000, end_seconds=(start + span) / 1000, max_frames=limit)
    inside = [index for index, seconds in enumerate(pts) if want.start_seconds <= seconds < want.end_seconds]
    assert [index for index, _ in chosen(want, pts)] == inside[:limit]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=60), st.floats(0.5, 120), st.integers(0, 1000))
def test_fps_takes_the_nearest_frame_to_each_tick(steps: list[int], fps: float, start: int) -> None:
    pts = np.cumsum([0, *steps]) / 1000
    wanted = chosen(Selection(fps=fps, start_seconds=start / 1000), list(pts))
    ticks = [time for _, time in wanted]
    assert np.allclose(ticks, start / 1000 + np.arange(len(ticks)) / fps)
    for index, tick in wanted:
        assert abs(pts[index] - tick) <= np.abs(pts - tick).min() + 3e-6
    assert start / 1000 + len(ticks) / fps > pts[-1] + 0.02 - 1e-5  # none is forgotten at the end


def test_fps_of_the_source_itself_takes_every_frame_once() -> None:
    for rate in (24, 25, 30000 / 1001, 60):
        pts = [round(index / rate * 1000) / 1000 for index in range(200)]
        assert [index for index, _ in chosen(Selection(fps=rate), pts, 1 / rate)] == list(range(200))


@given(counts, counts)
def test_uniform_indices_are_the_middles_of_equal_parts(num_frames: int, count: int) -> None:
    indices = uniform_indices(num_frames, count)
    assert len(indices) == count
    assert indices[0] >= 0
    assert indices[-1] < num_frames
    assert (np.diff(indices) >= 0).all()
    middles = (np.arange(count) + 0.5) * num_frames / count
    assert (np.abs(indices + 0.5 - middles) <= 0.5 + 1e-9).all()
    assert (indices + indices[::-1] <= num_frames).all()  # neither end is favoured by more than a frame
    assert (indices + indices[::-1] >= num_frames - 2).all()
    if count <= num_frames:
        assert len(set(indices.tolist())) == count


@given(counts, st.integers(1, 32), st.integers(1, 8), st.none() | st.integers(1, 50))
def test_strided_clips_stay_inside(num_frames: int, clip_frames: int, stride: int, hop: int | None) -> None:
    clips = strided_clips(num_frames, clip_frames=clip_frames, stride=stride, hop=hop)
    assert clips.shape[1] == clip_frames
    assert clips.min() == 0
    assert clips.max() < num_frames
    span = (clip_frames - 1) * stride + 1
    step = hop or clip_frames * stride
    assert len(clips) == (1 if num_frames < span else (num_frames - span) // step + 1)
    if num_frames >= span:
        assert (np.diff(clips, axis=1) == stride).all()
    if len(clips) > 1:
        assert (np.diff(clips[:, 0]) == step).all()


@given(
    st.builds(
        Selection,
        every=st.just(1),
        fps=st.none() | st.floats(0.1, 240),
        start_seconds=st.floats(0, 100),
        end_seconds=st.just(math.inf) | st.floats(101, 1000),
        max_frames=st.none() | counts,
    )
)
def test_json_gives_the_selection_back(selection: Selection) -> None:
    assert Selection.from_json(selection.as_json()) == selection


def test_everything_is_the_default() -> None:
    assert Selection().is_everything
    assert Selection().as_json() == {}
    assert not Selection(every=2).is_everything


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"every": 0}, "every must be"),
        ({"fps": 0.0}, "fps must be above 0"),
        ({"fps": math.nan}, "fps must be above 0"),
        ({"uniform": 0}, "uniform must be"),
        ({"every": 2, "fps": 5.0}, "exclude each other"),
        ({"uniform": 2, "fps": 5.0}, "exclude each other"),
        ({"start_seconds": -1.0}, "start at 0"),
        ({"start_seconds": math.nan}, "start at 0"),
        ({"start_seconds": 2.0, "end_seconds": 2.0}, "end after it starts"),
        ({"max_frames": 0}, "max_frames"),
    ],
)
def test_bad_selections_are_refused(values: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Selection(**values)  # type: ignore[arg-type]


def test_unknown_words_and_impossible_counts_are_refused() -> None:
    with pytest.raises(InputError, match="unknown frame selection"):
        Selection.from_json({"evry": 2})
    with pytest.raises(InputError, match="uniform_indices"):
        Chooser(Selection(uniform=3))
    with pytest.raises(InputError, match="at least one"):
        uniform_indices(0, 3)
    with pytest.raises(InputError, match="at least 1"):
        strided_clips(10, clip_frames=0)


@given(st.integers(2, 200), st.sampled_from([12.0, 15.0, 24.0, 24000 / 1001, 25.0, 30.0, 30000 / 1001, 50.0, 60.0]))
def test_steady_fps_is_told_from_rounded_times(num_frames: int, rate: float) -> None:
    exact = np.arange(num_frames) / rate
    assert steady_fps(exact) == pytest.approx(rate, rel=1e-6 if num_frames > 40 else 0.05)
    assert steady_fps(np.round(exact, 3)) == pytest.approx(rate, rel=1e-6 if num_frames > 100 else 0.05)


def test_no_steady_rate() -> None:
    assert steady_fps(np.array([0.0])) is None
    assert steady_fps(np.array([0.0, 0.04, 0.2])) is None
    assert steady_fps(np.array([0.0, 0.0])) is None
