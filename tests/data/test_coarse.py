"""First frames from coarse to fine: what they are, and as records of token shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tokenreel.cli.main import run as main
from tokenreel.data.coarse import COARSE, CoarseToFine, coarse_to_fine
from tokenreel.data.opening import open_collection
from tokenreel.errors import InputError
from tokenreel.media.frames import Selection
from tokenreel.tokens.shards import ShardReader

torch.set_num_threads(1)


def frame(height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_levels_are_averages_and_the_frame_is_last() -> None:
    picture = frame()
    levels = coarse_to_fine(picture, (1, 4, 16))
    assert (levels.shape, levels.dtype) == ((4, 32, 32, 3), np.uint8)
    assert np.array_equal(levels[3], picture)
    mean = picture.reshape(-1, 3).mean(0)
    assert np.abs(levels[0].astype(float) - mean).max() <= 1
    corner = picture[:8, :8].reshape(-1, 3).mean(0)
    assert np.abs(levels[1][0, 0].astype(float) - corner).max() <= 1  # half a cell from the edge nothing is mixed in
    spread = [float(level.astype(float).std()) for level in levels]
    assert spread == sorted(spread)


def test_a_shape_keeps_its_cells_square() -> None:
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, 32:] = 200
    level = coarse_to_fine(wide, (2,))[0]
    assert level.shape == (32, 64, 3)
    assert level[:, :8].max() == 0
    assert level[:, -8:].min() == 200
    assert np.abs(np.diff(level[0, :, 0].astype(int))).max() < 20  # between cells it is linear


def test_examples_become_short_clips_with_their_captions() -> None:
    scenes = open_collection("rendered:3,5,32,32")
    found = CoarseToFine(scenes, (4, 8))
    assert len(found) == 3
    for index in range(3):
        example, whole = found[index], scenes[index]
        clip = example.clip(Selection(), size=None)
        assert clip.frames_THWC.shape == (3, 32, 32, 3)
        assert np.array_equal(clip.frames_THWC[2], whole.clip(Selection(), size=None).frames_THWC[0])
        assert (example.caption, found.key(index)) == (whole.caption, scenes.key(index))
        assert example.payload.coarse == [4, 8]


@pytest.mark.parametrize("sides", [(), (8, 8), (16, 8), (0, 4)])
def test_sides_must_grow(sides: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"numbers of cells that grow, such as 8,16"):
        CoarseToFine(open_collection("rendered:1,1,32,32"), sides)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["tokenreel", "encode", "rendered:3,1,32,32", "-t", "raw", "-q", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    assert say("-o", str(tmp_path / "pictures"), "--coarse", "4,8") == 0
    reader = ShardReader(tmp_path / "pictures")
    assert (len(reader), reader[0].grid.t, reader[0].meta[COARSE]) == (3, 3, [4, 8])
    assert reader[0].meta["caption"]
    for words, message in (
        (["-o", str(tmp_path / "b"), "--coarse", "four"], "--coarse must be whole numbers such as 8,16"),
        (["-o", str(tmp_path / "b"), "--coarse", "8,4"], "numbers of cells that grow"),
        (["-o", str(tmp_path / "b.tokens"), "--coarse", "8"], "drawn scenes become a folder"),
    ):
        assert say(*words) != 0
        assert message in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "b").exists()
