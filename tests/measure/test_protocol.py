from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tokenreel.data.opening import open_collection
from tokenreel.errors import InputError
from tokenreel.measure.protocol import Protocol
from tokenreel.media.read import read


def test_the_first_frames_and_the_middle_square(make_clips: Callable[..., Path]) -> None:
    clips = open_collection(make_clips(1, frames=6))
    clip = Protocol(frames=4, size=24).read(clips[0])
    whole = read(Path(clips[0].source)).frames_THWC
    np.testing.assert_array_equal(clip.frames_THWC, whole[:4, :, 4:28])
    assert clip.fps == pytest.approx(10)
    assert Protocol(frames="all", size="native").read(clips[0]).size == (6, 24, 32)
    assert Protocol(frames=2, size=12, crop="none").read(clips[0]).size == (2, 12, 16)
    assert Protocol(frames=17, size=48).read(clips[0]).size == (6, 48, 48)  # short clips stay short, small ones grow
    halved = Protocol(frames="all", size="native", fps=5).read(clips[0])
    np.testing.assert_array_equal(halved.frames_THWC, whole[::2])


def test_in_words_and_as_json() -> None:
    protocol = Protocol(frames=1, size="native", fps=8)
    assert protocol.sentence() == "the first frame of each clip, at its own size"
    assert Protocol(frames="all", fps=8).sentence().startswith("all frames of each clip at 8 frames a second, short")
    assert "crop" not in Protocol(crop="none").sentence()
    assert Protocol.from_json(protocol.as_json()) == protocol
    with pytest.raises(InputError, match="unknown protocol fields"):
        Protocol.from_json({"frame": 3})


@pytest.mark.parametrize(
    "wrong", [{"frames": 0}, {"frames": True}, {"size": "big"}, {"fps": 0}, {"start": "middle"}, {"crop": "left"}]
)
def test_wrong_values_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} must be"):
        Protocol(**wrong)  # type: ignore[arg-type]
