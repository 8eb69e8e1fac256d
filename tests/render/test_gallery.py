"""The contact sheet shows the frames it says, with words beside them."""

from __future__ import annotations

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.render.draw import draw_scene
from tokenreel.render.gallery import gallery
from tokenreel.render.world import render_clip


def test_frames_stand_in_a_row_and_words_beside_them():
    clips = [render_clip(draw_scene(seed), 9) for seed in range(3)]
    sheet = gallery(clips, ["a red circle", "", "a star " * 40], num_frames=3, cell=64, text_width=200)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 8 + 3 * 72 + 200 + 8
    for column, index in enumerate((0, 4, 8)):
        left = 8 + 72 * column
        np.testing.assert_array_equal(sheet[8:72, left : left + 64], clips[0].frames_THWC[index])
    assert sheet[8:72, 224:].std() > 1
    assert sheet[80:144, 224:].std() < 3, "no words, so paper only"
    assert sheet.shape[0] > 8 + 3 * 72, "a long caption makes its row higher"


def test_refusals():
    with pytest.raises(InputError, match="one caption a clip"):
        gallery([], [])
    with pytest.raises(InputError, match="got 1 and 2"):
        gallery([render_clip(draw_scene(0), 1)], ["a", "b"])
