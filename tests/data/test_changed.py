"""Views of examples: the first as it is, the others changed by seed, in space and time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokenreel.data.augment import VideoAugment
from tokenreel.data.changed import ChangedViews
from tokenreel.data.scenes import CaptionedScenes
from tokenreel.errors import InputError
from tokenreel.media.frames import Selection

torch.set_num_threads(1)

SCENES = CaptionedScenes(3, 12, 16, 24)


def test_the_first_view_is_the_example_and_the_others_are_changed() -> None:
    viewed = ChangedViews(SCENES, 3, VideoAugment(shift=0.2, contrast=0.5))
    assert len(viewed) == 9
    assert [viewed.key(index) for index in range(3, 6)] == ["scene-1", "scene-1#view1", "scene-1#view2"]
    clips = [viewed[index].clip(Selection(uniform=5)) for index in range(3, 6)]
    np.testing.assert_array_equal(clips[0].frames_THWC, SCENES[1].clip(Selection(uniform=5)).frames_THWC)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (clips[one].frames_THWC != clips[other].frames_THWC).mean() > 0.1
    assert [viewed[index].meta.get("changed_view") for index in range(3, 6)] == [None, 1, 2]
    assert [viewed[index].caption for index in range(3, 6)] == [SCENES[1].caption] * 3
    assert [facts.get("meta", {}).get("changed_view") for facts in viewed._readable()][3:6] == [None, 1, 2]


def test_equal_seeds_give_equal_bytes() -> None:
    change = VideoAugment(shift=0.2, time_crop=0.5)
    one, same, other = (ChangedViews(SCENES, 2, change, seed=seed)[3].array() for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or (one != other).any()


def test_a_stretch_of_time_keeps_its_order_and_its_times() -> None:
    viewed = ChangedViews(SCENES, 40, VideoAugment(time_crop=0.6))
    whole = SCENES[0].clip()
    spans = []
    for index in range(1, 40):
        clip = viewed[index].clip(Selection(uniform=4))
        assert len(clip) == 4
        assert (np.diff(clip.pts_seconds) >= 0).all()
        for frame, seconds in zip(clip.frames_THWC, clip.pts_seconds):
            at = int(np.abs(whole.pts_seconds - seconds).argmin())
            assert np.abs(frame.astype(int) - whole.frames_THWC[at]).max() <= 1
        spans.append(clip.pts_seconds[-1] - clip.pts_seconds[0])
    assert max(spans) > 0.9 > 0.5 > min(spans)  # of 1.375 s
    assert len(viewed[1].clip()) <= 12


def test_numbers_are_checked() -> None:
    for num, seed in ((0, 0), (2, -1)):
        with pytest.raises(InputError, match="views must be at least 1"):
            ChangedViews(SCENES, num, VideoAugment(), seed=seed)
