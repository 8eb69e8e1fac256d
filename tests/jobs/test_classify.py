"""Files to labels: which frames are read, what is averaged, the picture of attention, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "classify"))

from small_vivit import CONFIG, HEADS, TOKEN_CONFIG, clip_of, saved, tokens_of, write_clips

from tokenreel.classify.rollout import rollout
from tokenreel.data.opening import open_collection
from tokenreel.errors import FormatError, InputError, MismatchError, TokenReelWarning
from tokenreel.jobs.classify import Prediction, classifier_of, classify_files
from tokenreel.jobs.classify_explain import frame_maps, painted
from tokenreel.jobs.classify_views import Views, chosen_clips, window_starts
from tokenreel.media.pixels import center_crop, resize
from tokenreel.media.read import read
from tokenreel.media.write import write
from tokenreel.samples import SAMPLE_IMAGE
from tokenreel.tokens.file import save
from tokenreel.train.classify_clips import ClipReader, ClipView

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return saved(tmp_path_factory.mktemp("model"))


def as_read(frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(T, 32, 48, 3) -> (3, T, 16, 24): half the size, the same shape."""
    return np.moveaxis(resize(np.ascontiguousarray(frames), (16, 24)), -1, 0)


def expected(model: Any, clips: list[Any]) -> dict[str, np.ndarray[Any, Any]]:
    each = [model.predict([clip]).probabilities() for clip in clips]
    return {head: np.mean([one[head][0].double().numpy() for one in each], axis=0) for head, _ in HEADS}


def assert_equal(prediction: Prediction, wanted: dict[str, np.ndarray[Any, Any]]) -> None:
    for head, probs in wanted.items():
        assert prediction.probabilities[head].sum() == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(prediction.probabilities[head], probs, rtol=0, atol=1e-6)


def test_clips_span_the_video_and_take_frames_in_turns(model: Any, tmp_path: Path) -> None:
    write_clips(tmp_path, 40)
    frames = clip_of(40, 0).frames_THWC
    # 16 parts of 2.5 frames; clip n takes parts n, n + 4, n + 8, n + 12.
    numbers = [int((part + 0.5) * 2.5) for part in range(16)]
    [prediction] = classify_files([tmp_path / "0.mkv"], model=model).predictions
    assert_equal(prediction, expected(model, [as_read(frames[numbers[first::4]]) for first in range(4)]))
    assert prediction.num_frames == 4
    assert prediction.spans[0] == pytest.approx((0.1, 3.1))
    [one] = classify_files([tmp_path / "0.mkv"], model=model, views=Views(clips=1)).predictions
    assert_equal(one, expected(model, [as_read(frames[[5, 15, 25, 35]])]))
    assert not np.allclose(one.probabilities["motion"], prediction.probabilities["motion"], atol=1e-6)


def test_one_clip_is_what_training_sees(model: Any, tmp_path: Path) -> None:
    write(tmp_path / "tall.mkv", clip_of(11, 3, size=(40, 30)))
    labelled: Any = open_collection(tmp_path / "tall.mkv")[0]
    from tokenreel.data.labelled import LabelledExample

    known = {"key": labelled.key, "source": labelled.source, "payload": labelled.payload}
    for fit in ("crop", "stretch"):
        config = replace(CONFIG, fit=fit)
        seen = ClipReader(config, ClipView(), is_random=False).read(LabelledExample(**known, classes={}))  # type: ignore[arg-type]
        views = Views(clips=1, fit=fit)  # type: ignore[arg-type]
        [prediction] = classify_files([tmp_path / "tall.mkv"], model=model, views=views).predictions
        assert_equal(prediction, expected(model, [seen]))
        own = type(model)(config).eval()  # its own fit, where none is said
        own.load_state_dict(model.state_dict())
        found = classify_files([tmp_path / "tall.mkv"], model=own, views=Views(clips=1))
        assert (found.views.fit, found.as_json()["fit"]) == (fit, fit)
        assert_equal(found.predictions[0], expected(model, [seen]))


def test_windows_at_a_stride(model: Any, tmp_path: Path) -> None:
    [path] = write_clips(tmp_path, 40)
    frames = clip_of(40, 0).frames_THWC
    starts, stride = window_starts(40, clip_frames=4, clips=3, stride=2)
    assert (starts, stride) == ((5, 17, 28), 2)  # 34 beginnings, the middles of three parts
    clips = [as_read(frames[start : start + 7 : 2]) for start in starts]
    [prediction] = classify_files([path], model=model, views=Views(clips=3, stride=2)).predictions
    assert_equal(prediction, expected(model, clips))
    assert prediction.spans == tuple(pytest.approx((start / 10, start / 10 + 0.6)) for start in starts)
    write(tmp_path / "a.gif", clip_of(9, 1))  # no rate in its header
    gif = read(tmp_path / "a.gif").frames_THWC
    [second] = classify_files([tmp_path / "a.gif"], model=model, views=Views(clips=2, stride=2)).predictions
    assert_equal(second, expected(model, [as_read(gif[start : start + 7 : 2]) for start in (0, 2)]))


def test_short_videos_and_pictures_are_read_as_they_are(model: Any, tmp_path: Path) -> None:
    write_clips(tmp_path, 3, 6)
    for stride in (None, 1, 5):
        three, six = classify_files([tmp_path], model=model, views=Views(stride=stride)).predictions
        assert_equal(three, expected(model, [as_read(clip_of(3, 0).frames_THWC)]))
        assert (len(three.spans), three.num_frames) == (1, 3)
        assert len(six.spans) == (3 if stride == 1 else 1 if stride is None else 3)
    [picture] = classify_files([SAMPLE_IMAGE], model=model).predictions
    frames = read(SAMPLE_IMAGE).frames_THWC
    height, width = frames.shape[1:3]
    scale = max(16 / height, 24 / width)
    small = center_crop(resize(frames, (max(16, round(height * scale)), max(24, round(width * scale)))), 16, 24)
    assert_equal(picture, expected(model, [np.moveaxis(small, -1, 0)]))


def test_window_starts_cover_all_beginnings_and_never_leave_the_video() -> None:
    for num_frames in (1, 2, 5, 17, 100):
        for clips in (1, 3, 200):
            for stride in (1, 3, 9):
                starts, step = window_starts(num_frames, clip_frames=8, clips=clips, stride=stride)
                last = (min(8, num_frames) - 1) * step
                assert 1 <= len(starts) <= clips
                assert list(starts) == sorted(set(starts))
                assert starts[0] >= 0
                assert starts[-1] + last < num_frames
                assert step <= stride
    assert window_starts(20, clip_frames=8, clips=200, stride=1)[0] == tuple(range(13))


def test_grey_models_read_luma(tmp_path: Path) -> None:
    grey = saved(tmp_path / "grey", replace(CONFIG, in_channels=1))
    write_clips(tmp_path / "clips", 4)
    frames = resize(clip_of(4, 0).frames_THWC, (16, 24)).astype(np.float64)
    luma = np.rint(0.299 * frames[..., 0] + 0.587 * frames[..., 1] + 0.114 * frames[..., 2]).astype(np.uint8)
    [prediction] = classify_files([tmp_path / "clips"], model=grey).predictions
    assert_equal(prediction, expected(grey, [luma[None]]))


def test_a_prediction_tells_labels_in_order(model: Any, tmp_path: Path) -> None:
    files = write_clips(tmp_path, 4, 9)
    seen: list[tuple[int, int | None]] = []
    result = classify_files(files, model=model, progress=lambda *n: seen.append(n))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    for prediction in result.predictions:
        probs, labels = prediction.probabilities["motion"], HEADS[0][1]
        order = np.argsort(-probs)
        assert prediction.top("motion", 3) == [(labels[i], probs[i]) for i in order[:3]]
        assert prediction.label() == labels[order[0]]
        values = prediction.as_json(2)
        assert set(values) == {"source", "clips", "frames", "seconds", "heads"}
        assert [one["label"] for one in values["heads"]["motion"]["top"]] == [labels[i] for i in order[:2]]
        assert values["heads"]["colour"]["label"] == prediction.label("colour")
    with pytest.raises(InputError, match="no head 'size'; the heads are motion, colour"):
        result.predictions[0].top("size")


def test_many_files_are_as_one_by_one(model: Any, tmp_path: Path) -> None:
    files = write_clips(tmp_path, *[4, 30, 3, 12] * 4)  # more clips than one batch holds
    together = classify_files([tmp_path], model=model).predictions
    assert [Path(one.source).name for one in together] == sorted(path.name for path in files)
    for prediction in together:
        [alone] = classify_files([prediction.source], model=model).predictions
        assert_equal(prediction, dict(alone.probabilities))


def test_token_files(tmp_path: Path) -> None:
    reader = saved(tmp_path / "model", TOKEN_CONFIG)
    clips = [tokens_of(2, 0), tokens_of(3, 1)]
    for index, tokens in enumerate(clips):
        save(tmp_path / "ids" / f"{index}.tokens", tokens)
    result = classify_files([tmp_path / "ids"], model=tmp_path / "model")
    assert result.fingerprint == reader.fingerprint
    for prediction, tokens in zip(result.predictions, clips):
        assert_equal(prediction, expected(reader, [tokens]))
        assert prediction.as_json()["seconds"] == [None]
    save(tmp_path / "other.tokens", tokens_of(2, 0, "0" * 64))
    with pytest.raises(MismatchError, match=r"other\.tokens: these tokens were made by cvivit 000000000000, this"):
        classify_files([tmp_path / "ids", tmp_path / "other.tokens"], model=reader)
    write_clips(tmp_path / "clips", 3)
    with pytest.raises(MismatchError, match=r"0\.mkv holds pixels, and this classifier reads tokens of cvivit ffff"):
        classify_files([tmp_path / "clips"], model=reader)
    with pytest.raises(MismatchError, match="draws over pixels, and a token_vivit reads tokens"):
        classify_files([tmp_path / "ids" / "0.tokens"], model=reader, explain=tmp_path / "a.gif")


def test_tokens_are_refused_by_a_reader_of_pixels(model: Any, tmp_path: Path) -> None:
    save(tmp_path / "a.tokens", tokens_of())
    with pytest.raises(MismatchError, match=r"a\.tokens holds tokens, and this classifier reads pixels"):
        classify_files([tmp_path / "a.tokens"], model=model)


def test_broken_files_are_skipped_named_and_counted(model: Any, tmp_path: Path) -> None:
    write_clips(tmp_path, 4, 4, 4)
    (tmp_path / "1.mkv").write_bytes(b"no video")
    with pytest.warns(TokenReelWarning, match=r"skipped: .*1\.mkv"):
        result = classify_files([tmp_path], model=model)
    assert [Path(one.source).name for one in result.predictions] == ["0.mkv", "2.mkv"]
    assert [Path(source).name for source, _ in result.skipped] == ["1.mkv"]
    with pytest.raises(InputError, match=r"1\.mkv"):
        classify_files([tmp_path / "1.mkv"], model=model)
    for path in tmp_path.glob("*.mkv"):
        path.write_bytes(b"no video")
    with pytest.warns(TokenReelWarning), pytest.raises(InputError, match="none of the 3 files could be classified"):
        classify_files([tmp_path], model=model)


def test_what_is_no_classifier_is_told(model: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        classify_files([tmp_path / "none.mp4"], model=model)
    with pytest.raises(InputError, match="at least one file"):
        classify_files([], model=model)
    with pytest.raises(InputError, match="there is no file"):
        classifier_of(tmp_path)
    with pytest.raises(FormatError, match="describes a tokenizer"):
        classifier_of("video-fsq")
    with pytest.raises(InputError, match="there is no file"):
        classifier_of("vivit-emotions")
    for wrong in ({"clips": 0}, {"stride": 0}, {"stride": 1.5}, {"clips": None}, {"fit": "pad"}):
        with pytest.raises(InputError, match=f"^{next(iter(wrong))} must be"):
            Views(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["mp4", "gif", "webp"])
def test_the_explanation_shows_every_frame_that_was_read(model: Any, tmp_path: Path, suffix: str) -> None:
    [path] = write_clips(tmp_path, 20)
    output = tmp_path / f"look.{suffix}"
    result = classify_files([path], model=model, views=Views(clips=2), explain=output)
    assert result.explanation == output
    frames = read(output).frames_THWC
    assert len(frames) == 8
    assert frames.shape[1:3] == (192 + 8 + 2 * 24, 2 * 288 + 8)
    left, right = frames[:, :190, :286].astype(int), frames[:, :190, 298:582].astype(int)
    assert np.abs(left[:, :, :284] - right).mean() > 4  # the heat
    with pytest.raises(InputError, match=r"cannot write '\.txt' files"):
        classify_files([path], model=model, explain=tmp_path / "a.txt")
    write_clips(tmp_path / "more", 4, 4)
    with pytest.raises(InputError, match="--explain shows one video, got 2"):
        classify_files([tmp_path / "more"], model=model, explain=output)


def test_maps_of_frames_are_those_of_their_tubelets(model: Any) -> None:
    video = as_read(clip_of(4, 0).frames_THWC)
    maps = frame_maps(model, video)
    [map_thw] = rollout(model, [video])
    assert [one.shape for one in maps] == [(16, 24)] * 4
    assert np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[1], maps[2])
    for step, one in enumerate((maps[0], maps[2])):
        assert one.mean() == pytest.approx(float(map_thw[step].mean()), rel=0.05)
        assert np.unravel_index(one.argmax(), one.shape)[1] // 8 == int(map_thw[step].argmax()) % 3


def test_colour_lies_where_the_map_is() -> None:
    image = Image.new("RGB", (40, 20), (100, 100, 100))
    share = np.zeros((8, 8), np.float32)
    share[:, 4:] = 1
    changed = np.abs(np.asarray(painted(image, share)).astype(int) - 100).sum(-1) > 0
    assert not changed[:, :18].any()  # left half of the middle square
    assert changed[:, 22:30].all()
    assert not changed[:, 30:].any()  # outside the crop
    assert (np.abs(np.asarray(painted(image, share, "stretch")).astype(int) - 100).sum(-1) > 0)[:, 25:].all()


def test_chosen_clips_of_an_array_are_slices(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 255, (9, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "v.npz", train_images=volume[None].repeat(2, 0), train_labels=np.array([[0], [1]]))
    example = open_collection(tmp_path / "v.npz", split="train")[0]
    [whole] = chosen_clips(example, 9, Views())
    assert np.array_equal(whole.frames_THWC[..., 0], volume)
    first, second = chosen_clips(example, 4, Views(clips=2))
    assert np.array_equal(first.frames_THWC[..., 0], volume[[0, 2, 5, 7]])
    assert np.array_equal(second.frames_THWC[..., 0], volume[[1, 3, 6, 8]])
    windows = chosen_clips(example, 4, Views(clips=2, stride=2))
    assert [clip.pts_seconds.tolist() for clip in windows] == [[0, 2, 4, 6], [2, 4, 6, 8]]
