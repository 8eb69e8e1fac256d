"""The evaluator against the same figures computed plainly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from coarse import LEVELS, CoarseTokenizer, CroppingTokenizer, ExactCoarse, coarse

from tokenreel.data.opening import open_collection
from tokenreel.errors import InputError, MismatchError, TokenReelWarning
from tokenreel.measure.evaluate import Evaluator
from tokenreel.measure.protocol import Protocol
from tokenreel.media.read import read
from tokenreel.media.write import write
from tokenreel.tokenizers import RawTokenizer
from tokenreel.types import Clip, Tokens

Make = Callable[..., Path]
SMALL = Protocol(frames=3, size=24)


def test_figures_are_those_of_a_plain_computation(make_clips: Make) -> None:
    folder = make_clips(3)
    scores = Evaluator(open_collection(folder), protocol=SMALL).measure(CoarseTokenizer())
    levels, temporal, seen = [], [], np.zeros(LEVELS, int)
    for row, path in zip(scores.clips, sorted(folder.glob("*.mkv"))):
        frames = read(path).frames_THWC[:3, :, 4:28]
        ours = coarse(frames)
        error = frames / 255 - ours
        levels.append(-10 * math.log10((error**2).mean()))
        temporal.append(-10 * math.log10((np.diff(error, axis=0) ** 2).mean()))
        seen += np.bincount(np.rint(ours * (LEVELS - 1)).astype(int).ravel(), minlength=LEVELS)
        assert row.key == path.name
        assert row.psnr_db == pytest.approx(levels[-1], abs=1e-4)
        assert row.temporal_psnr_db == pytest.approx(temporal[-1], abs=1e-4)
        assert (row.num_tokens, row.num_bits, row.bits_per_pixel) == (3 * 3 * 24 * 24, 3 * 3 * 24 * 24 * 4, 12)
        assert row.seconds == pytest.approx(0.3)
    values = dict(scores.named())
    assert values["psnr_db"] == pytest.approx(np.mean(levels), abs=1e-4)
    assert values["temporal_psnr_db"] == pytest.approx(np.mean(temporal), abs=1e-4)
    assert values["bits_per_pixel"] == 12
    np.testing.assert_array_equal(scores.counts.counts_K, seen)
    shares = seen[seen > 0] / seen.sum()
    entropy = -(shares * np.log2(shares)).sum()
    assert values["entropy_bits"] == pytest.approx(entropy)
    assert values["perplexity"] == pytest.approx(2**entropy)
    assert values["codebook_usage"] == (seen > 0).mean()
    assert values["entropy_bits_per_pixel"] == pytest.approx(3 * entropy)
    assert "ms_ssim" not in values  # frames of 24 pixels are too small
    assert "lpips" not in values


def test_run_yields_the_same_names_and_values(make_clips: Make) -> None:
    evaluator = Evaluator(open_collection(make_clips(2)), protocol=SMALL)
    first, second = dict(evaluator.run(CoarseTokenizer())), dict(evaluator.run(CoarseTokenizer()))
    timed = {"encode_frames_per_second", "decode_frames_per_second"}
    assert {name: first[name] for name in first.keys() - timed} == {
        name: second[name] for name in second.keys() - timed
    }
    assert all(first[name] > 0 for name in timed)


def test_no_more_ids_are_kept_than_merges_need(make_clips: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    monkeypatch.setattr("tokenreel.measure.evaluate.MOST_IDS", 6000)  # a clip has 5184
    monkeypatch.setattr(
        "tokenreel.measure.evaluate.merge_saving", lambda ids, codebook_size: kept.extend(part.size for part in ids)
    )
    Evaluator(open_collection(make_clips(6)), protocol=SMALL).measure(CoarseTokenizer())
    assert kept == [5184] * 4


def test_raw_is_exact(make_clips: Make) -> None:
    scores = Evaluator(open_collection(make_clips(2)), protocol=SMALL).measure(RawTokenizer(patch_size=(1, 8, 8)))
    values = dict(scores.named())
    assert values["psnr_db"] == values["temporal_psnr_db"] == math.inf
    assert values["ssim"] == 1
    assert values["bits_per_pixel"] == 24
    as_json = scores.as_json()
    assert (as_json["psnr_db"], as_json["exact_clips"], as_json["per_clip"][0]["exact"]) == (None, 2, True)
    assert scores.clips[0].num_tokens == 3 * 24 * 24 * 3


def test_exact_clips_are_counted_apart(make_clips: Make) -> None:
    """A level of infinity among others would hide them."""
    folder = make_clips(2)
    frames = np.full((3, 24, 24, 3), 17, np.uint8)  # 17 = 255 / 15 is one of the 16 levels
    write(folder / "exact.mkv", Clip(frames_THWC=frames, pts_seconds=np.arange(3) / 10, fps=10.0))
    scores = Evaluator(open_collection(folder), protocol=SMALL).measure(ExactCoarse())
    values = scores.as_json()
    assert values["exact_clips"] == 1
    others = [row.psnr_db for row in scores.clips if row.squared_error]
    assert len(others) == 2
    assert values["psnr_db"] == pytest.approx(np.mean(others))


def test_pictures_are_clips_of_one_frame(tmp_path: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / name)
    scores = Evaluator(open_collection(tmp_path), protocol=Protocol(size="native")).measure(CoarseTokenizer())
    assert [row.size for row in scores.clips] == [(1, 30, 40)] * 2
    assert "temporal_psnr_db" not in dict(scores.named())
    speed = scores.as_json()["speed"]["encode"]
    assert speed["video_seconds_per_second"] is None
    assert speed["frames_per_second"] > 0


def test_broken_clips_are_skipped_named_and_counted(make_clips: Make) -> None:
    folder = make_clips(2)
    (folder / "1.mkv").write_bytes(b"no video")
    seen: list[tuple[int, int | None]] = []
    evaluator = Evaluator(
        open_collection(folder), protocol=SMALL, progress=lambda done, total: seen.append((done, total))
    )
    with pytest.warns(TokenReelWarning, match="skipped"):
        scores = evaluator.measure(CoarseTokenizer())
    assert [row.key for row in scores.clips] == ["0.mkv"]
    assert len(scores.skipped) == 1
    assert scores.skipped[0][0].endswith("1.mkv")
    assert scores.merges is None  # one clip has no other half
    assert seen == [(0, 2), (1, 2), (2, 2)]
    (folder / "0.mkv").write_bytes(b"nor this")
    with pytest.warns(TokenReelWarning), pytest.raises(InputError, match="none of the 2 clips"):
        evaluator.measure(CoarseTokenizer())


def test_a_tokenizer_that_loses_rows_is_refused(make_clips: Make) -> None:
    with pytest.raises(MismatchError, match="decodes it to"):
        Evaluator(open_collection(make_clips(1)), protocol=SMALL).measure(CroppingTokenizer())


def test_a_further_distance_and_a_watcher(make_clips: Make) -> None:
    seen = []

    def mean_difference(a: torch.Tensor, b: torch.Tensor) -> float:
        assert float(a.min()) < -0.5  # [-1, 1]
        return float((a - b).abs().mean())

    evaluator = Evaluator(
        open_collection(make_clips(2)),
        protocol=SMALL,
        perceptual=mean_difference,
        watch=lambda row, frames, decoded: seen.append((row.key, frames, decoded.numpy())),
    )
    scores = evaluator.measure(CoarseTokenizer())
    assert [key for key, _, _ in seen] == ["0.mkv", "1.mkv"]
    _, frames, decoded = seen[1]
    np.testing.assert_allclose(decoded.transpose(1, 2, 3, 0), coarse(frames), atol=1e-6)
    assert scores.clips[1].lpips == pytest.approx(2 * np.abs(frames / 255 - coarse(frames)).mean(), rel=1e-4)
    assert dict(scores.named())["lpips"] == pytest.approx(np.mean([row.lpips for row in scores.clips]))


def test_a_token_count_reaches_the_tokenizer(make_clips: Make) -> None:
    class Counted(CoarseTokenizer):
        asked: ClassVar[list[object]] = []

        def encode(self, videos: Sequence[torch.Tensor], *, token_counts: int | None = None) -> list[Tokens]:
            self.asked.append(token_counts)
            return super().encode(videos)

    clips = open_collection(make_clips(1))
    Evaluator(clips, protocol=SMALL, token_count=7).measure(Counted())
    assert Counted.asked == [7, 7]
    with pytest.raises(InputError, match="does not leave the choice"):
        Evaluator(clips, protocol=SMALL, token_count=7).measure(CoarseTokenizer())


def test_decoded_values_are_clamped_and_must_be_numbers() -> None:
    from tokenreel.measure.roundtrip import unit_video

    video = torch.tensor([-3.0, -1, 0, 1, 3]).reshape(1, 1, 1, 5)
    assert unit_video(video).flatten().tolist() == [0, 0, 0.5, 1, 1]
    with pytest.raises(InputError, match="not finite"):
        unit_video(video / 0)
