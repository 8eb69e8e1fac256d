from __future__ import annotations

import io
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from rendered import encode, moving_frames

from tokenreel.errors import InputError, MediaError, TokenReelWarning
from tokenreel.media.frames import Selection, uniform_indices
from tokenreel.media.read import open_media, read

FRAMES = moving_frames(12, 48, 64)
BOXES = moving_frames(12, 64, 64)  # the AV1 encoder takes nothing smaller


# -- video ----------------------------------------------------------------------------------------------------

VIDEOS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264.mov": {},
    "h264.mkv": {},
    "h264.avi": {},
    "h264.ts": {},
    "high10.mp4": {"pix_fmt": "yuv420p10le"},
    "h265.mp4": {"codec": "libx265"},
    "h265-10.mkv": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
    "vp8.webm": {"codec": "libvpx", "options": {"crf": "4", "b": "2M"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"crf": "10", "b": "0"}},
    "av1.mp4": {"codec": "libsvtav1", "frames": BOXES, "options": {"crf": "15"}},
    "av1-10.mkv": {"codec": "libsvtav1", "pix_fmt": "yuv420p10le", "frames": BOXES, "options": {"crf": "15"}},
    "full.mp4": {"colour": (2, 2, 2, 2)},
    "odd.webm": {"codec": "libvpx-vp9", "frames": FRAMES[:, :47, :61], "options": {"crf": "10", "b": "0"}},
    "odd.mp4": {"pix_fmt": "yuv444p", "frames": FRAMES[:, :47, :61]},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"b": "4M"}},
}


@pytest.mark.parametrize("name", VIDEOS)
def test_every_container_and_codec_gives_its_frames(name: str, tmp_path: Path) -> None:
    values = dict(VIDEOS[name])
    frames = values.pop("frames", FRAMES)
    clip = read(encode(tmp_path / name, frames, **values))
    assert clip.frames_THWC.shape == frames.shape
    smooth = np.s_[:, :20]  # below lies noise, which 4:2:0 cannot hold
    assert np.abs(clip.frames_THWC[smooth].astype(int) - frames[smooth]).mean() < 12
    assert np.allclose(clip.pts_seconds, np.arange(12) / 25, atol=1.1e-3)
    assert clip.fps == 25


def test_variable_frame_rate_keeps_true_times(tmp_path: Path) -> None:
    pts = [0, 40, 80, 200, 240, 500, 520, 540, 900, 1000, 1040, 1080]
    for name in ("a.mp4", "a.mkv", "a.ts"):
        clip = read(encode(tmp_path / name, FRAMES, pts=pts))
        assert np.allclose(clip.pts_seconds, np.array(pts) / 1000, atol=1e-4)
        assert clip.fps is None


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    pts = [5000 + 40 * index for index in range(12)]
    for name in ("a.mp4", "a.mkv", "a.ts"):
        path = encode(tmp_path / name, FRAMES, pts=pts)
        assert np.allclose(read(path).pts_seconds, np.arange(12) * 0.04, atol=1e-4)
        late = read(path, Selection(start_seconds=0.2))
        assert np.allclose(late.pts_seconds, np.arange(5, 12) * 0.04, atol=1e-4)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [(False, False), (True, False), (False, True)])
def test_rotation_and_flips_are_applied(degrees: int, flip: tuple[bool, bool], tmp_path: Path) -> None:
    plain = read(encode(tmp_path / "plain.mp4", FRAMES[:3])).frames_THWC
    path = encode(tmp_path / "turned.mp4", FRAMES[:3], rotation=(degrees, *flip))
    with open_media(path) as reader:
        turned = np.stack([frame.pixels_HWC for frame in reader])
        assert (reader.height, reader.width) == turned.shape[1:3]
    assert turned.shape[1:3] == ((64, 48) if degrees in (90, 270) else (48, 64))
    candidates = [np.rot90(plain, k, axes=(1, 2)) for k in range(4)]
    candidates += [candidate[:, :, ::-1] for candidate in candidates]
    assert sum(np.array_equal(turned, candidate) for candidate in candidates) == 1
    if flip == (False, False):  # PyAV counts counterclockwise
        assert np.array_equal(turned, np.rot90(plain, degrees // 90, axes=(1, 2)))


def test_transparent_video_lies_on_the_background(tmp_path: Path) -> None:
    rgba = np.zeros((3, 48, 64, 4), np.uint8)
    rgba[:, :, :32] = (200, 40, 40, 255)
    rgba[:, :24, 16:] = (200, 40, 40, 128)
    for name, codec, pix_fmt in (("a.mkv", "ffv1", "bgra"), ("a.mov", "qtrle", "argb"), ("p.mov", "png", "rgba")):
        path = encode(tmp_path / name, rgba, codec, pix_fmt)
        for background in ((255, 255, 255), (0, 90, 180)):
            pixels = read(path, background=background).frames_THWC[0]
            assert tuple(pixels[40, 60]) == background
            assert tuple(pixels[40, 4]) == (200, 40, 40)
            mixed = [round((128 * over + 127 * under) / 255) for over, under in zip((200, 40, 40), background)]
            assert np.abs(pixels[4, 30].astype(int) - mixed).max() <= 1


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on PATH")
@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx"])
def test_transparent_webm_lies_on_the_background(codec: str, tmp_path: Path) -> None:
    rgba = np.zeros((4, 48, 64, 4), np.uint8)
    rgba[:, :, :32] = (200, 40, 40, 255)
    path = tmp_path / "a.webm"
    source = ["-f", "rawvideo", "-pix_fmt", "rgba", "-s", "64x48", "-r", "25", "-i", "-"]
    command = ["ffmpeg", "-v", "error", *source, "-c:v", codec, "-auto-alt-ref", "0", "-pix_fmt", "yuva420p", str(path)]
    subprocess.run(command, input=rgba.tobytes(), check=True)
    for background in ((255, 255, 255), (0, 90, 180)):
        clip = read(path, background=background)
        assert len(clip) == 4
        assert np.abs(clip.frames_THWC[0, 24, 56].astype(int) - background).max() <= 2
        assert np.abs(clip.frames_THWC[0, 24, 8].astype(int) - (200, 40, 40)).max() < 20


# -- pictures -------------------------------------------------------------------------------------------------


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "PPM", "GIF"])
def test_a_picture_is_a_clip_of_one_frame(kind: str) -> None:
    smooth = np.stack(np.broadcast_arrays(*np.ogrid[0:94:2, 0:122:2], 90), axis=-1).astype(np.uint8)
    lossless = kind in ("PNG", "BMP", "TIFF", "PPM")
    clip = read(saved(Image.fromarray(smooth), kind, **({"quality": 95} if kind in ("JPEG", "WEBP", "AVIF") else {})))
    assert clip.size == (1, 47, 61)
    assert clip.pts_seconds.tolist() == [0.0]
    assert np.abs(clip.frames_THWC[0].astype(int) - smooth).mean() <= (0 if lossless else 4)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    pixels = read(saved(Image.fromarray(grey), "PNG")).frames_THWC[0]
    assert np.array_equal(pixels[..., 0].ravel(), np.arange(256))
    assert (pixels == pixels[..., :1]).all()


def test_bilevel_grey_and_cmyk() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(read(saved(Image.fromarray(grey), "PNG")).frames_THWC[0, ..., 1], grey)
    bilevel = Image.fromarray(grey > 99)
    assert set(np.unique(read(saved(bilevel, "PNG")).frames_THWC)) == {0, 255}
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow ink make red
    assert np.abs(read(saved(cmyk, "JPEG", quality=95)).frames_THWC[0, 8, 8].astype(int) - (255, 0, 0)).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "AVIF"])
def test_transparent_pictures_lie_on_the_background(kind: str) -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:, :8] = (200, 40, 40, 255)
    data = saved(Image.fromarray(rgba), kind, **({"lossless": True} if kind == "WEBP" else {}))
    for background in ((255, 255, 255), (0, 90, 180)):
        pixels = read(data, background=background).frames_THWC[0].astype(int)
        assert np.abs(pixels[8, 14] - background).max() <= 2
        assert np.abs(pixels[8, 2] - (200, 40, 40)).max() <= (12 if kind == "AVIF" else 0)


def test_a_palette_with_a_transparent_colour() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (4, 0, 8, 8))
    pixels = read(saved(image, "PNG", transparency=0), background=(1, 2, 3)).frames_THWC[0]
    assert tuple(pixels[0, 0]) == (1, 2, 3)
    assert tuple(pixels[0, 7]) == (200, 100, 50)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation: int) -> None:
    from PIL import ImageOps

    image = Image.fromarray(FRAMES[0])
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, "PNG", exif=exif)
    with open_media(data) as reader:
        pixels = next(iter(reader)).pixels_HWC
        assert (reader.height, reader.width) == pixels.shape[:2]
    assert np.array_equal(pixels, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_animations_keep_frames_and_times(kind: str, options: dict[str, Any]) -> None:
    images = [Image.fromarray(frame).quantize(64).convert("RGB") for frame in FRAMES[:5]]
    times = [40, 200, 30, 500, 80]
    data = saved(images[0], kind, save_all=True, append_images=images[1:], duration=times, loop=0, **options)
    with open_media(data) as reader:
        assert reader.info.kind == "animation"
        clip = read(data)
    assert np.allclose(clip.pts_seconds, np.cumsum([0, *times[:-1]]) / 1000)
    assert np.array_equal(clip.frames_THWC, np.stack([np.asarray(image) for image in images]))
    assert read(data, Selection(uniform=2)).pts_seconds.tolist() == clip.pts_seconds[[1, 3]].tolist()


def test_untimed_animations_are_shown_at_ten_a_second() -> None:
    images = [Image.fromarray(frame) for frame in FRAMES[:3]]
    for kind in ("GIF", "PNG"):
        data = saved(images[0], kind, save_all=True, append_images=images[1:], duration=0)
        assert np.allclose(read(data).pts_seconds, [0, 0.1, 0.2])
    fast = saved(images[0], "PNG", save_all=True, append_images=images[1:], duration=10)
    assert np.allclose(read(fast).pts_seconds, [0, 0.01, 0.02])


def test_a_png_still_beside_its_animation_is_no_frame() -> None:
    images = [Image.fromarray(frame) for frame in FRAMES[:4]]
    data = saved(images[0], "PNG", save_all=True, append_images=images[1:], default_image=True, duration=40)
    assert np.array_equal(read(data).frames_THWC, FRAMES[1:4])


# -- choosing and seeking -------------------------------------------------------------------------------------

SEEKING: dict[str, dict[str, Any]] = {
    "bframes.mp4": {"options": {"bf": "3", "g": "12"}},
    "opengop.mp4": {"options": {"bf": "3", "g": "12", "x264-params": "open-gop=1"}},
    "opengop.mkv": {"options": {"bf": "3", "g": "12", "x264-params": "open-gop=1"}},
    "longgop.mp4": {"options": {"bf": "2", "g": "1000"}},
    "intra.mov": {"options": {"g": "1"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "15"}},
    "altref.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "12", "g": "20", "b": "60k",
                                                  "deadline": "good"}},
    "h265.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=16:open-gop=1:bframes=3"}},
    "a.ts": {"options": {"bf": "2", "g": "12"}},
    "a.avi": {"codec": "mpeg4", "options": {"g": "12"}},
    "fragments.mp4": {"options": {"g": "12"}, "container": {"movflags": "frag_keyframe+empty_moov"}},
}  # fmt: skip


@pytest.mark.parametrize("name", SEEKING)
def test_chosen_frames_are_those_of_decoding_everything(name: str, tmp_path: Path) -> None:
    path = encode(tmp_path / name, moving_frames(90), **SEEKING[name])
    whole = read(path)
    assert len(whole) == 90
    assert_chosen_like_whole(path, whole)


def assert_chosen_like_whole(path: Path, whole: Any) -> None:
    for count in (1, 2, 5, 40, 200):
        indices = uniform_indices(len(whole), count)
        clip = read(path, Selection(uniform=count))
        assert np.array_equal(clip.pts_seconds, whole.pts_seconds[indices])
        assert np.array_equal(clip.frames_THWC, whole.frames_THWC[indices])
    for start in (0.0, 0.3, 1.0, float(whole.pts_seconds[-3])):
        for step in (1, 4):
            clip = read(path, Selection(start_seconds=start, every=step, max_frames=6))
            first = int(np.argmax(whole.pts_seconds >= start - 1e-9))
            assert np.array_equal(clip.frames_THWC, whole.frames_THWC[first::step][:6])
        middle = read(path, Selection(start_seconds=start, uniform=3, end_seconds=start + 1.1))
        inside = np.flatnonzero((whole.pts_seconds >= start - 1e-9) & (whole.pts_seconds < start + 1.1))
        assert np.array_equal(middle.frames_THWC, whole.frames_THWC[inside[uniform_indices(len(inside), 3)]])
    for step in (2, 3, 10, 50):
        clip = read(path, Selection(every=step))
        assert np.array_equal(clip.pts_seconds, whole.pts_seconds[::step])
        assert np.array_equal(clip.frames_THWC, whole.frames_THWC[::step])
        late = whole.frames_THWC[whole.pts_seconds >= 1.0 - 1e-9][::step]
        assert np.array_equal(read(path, Selection(every=step, start_seconds=1.0)).frames_THWC, late)
    slow = read(path, Selection(fps=7, start_seconds=0.5))
    nearest = [
        int(np.argmin(np.abs(whole.pts_seconds - tick) - 1e-6 * (whole.pts_seconds < tick)))
        for tick in slow.pts_seconds
    ]
    assert np.array_equal(slow.frames_THWC, whole.frames_THWC[nearest])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on PATH")
def test_frames_before_an_edit_list_are_not_shown(tmp_path: Path) -> None:
    source = encode(tmp_path / "source.mp4", moving_frames(90), options={"bf": "2", "g": "30"})
    for name in ("cut.mp4", "cut.mkv"):
        path = tmp_path / name
        subprocess.run(["ffmpeg", "-v", "error", "-ss", "1.5", "-i", str(source), "-c", "copy", str(path)], check=True)
        whole = read(path)
        if name == "cut.mp4":
            assert np.array_equal(whole.frames_THWC, read(source).frames_THWC[-len(whole) :])
        assert_chosen_like_whole(path, whole)


def test_uniform_over_damaged_packets_gives_as_many_frames_and_warns(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", moving_frames(60), options={"g": "10", "bf": "2"})
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 600] = bytes(600)
    with pytest.warns(TokenReelWarning, match="damaged"):
        clip = read(bytes(data), Selection(uniform=30))
    assert len(clip) == 30
    assert (np.diff(clip.pts_seconds) >= 0).all()
    with pytest.warns(TokenReelWarning, match="damaged"):
        whole = read(bytes(data))
    with pytest.warns(TokenReelWarning, match="damaged"):
        third = read(bytes(data), Selection(every=3))
    assert (np.diff(third.pts_seconds) > 0).all()
    assert len(whole) // 3 - 3 <= len(third) <= 20
    assert np.array_equal(third.frames_THWC[:6], whole.frames_THWC[::3][:6])


def test_an_empty_range_is_an_error(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", FRAMES)
    for selection in (
        Selection(start_seconds=9),
        Selection(start_seconds=9, uniform=2),
        Selection(start_seconds=9, fps=5),
    ):
        with pytest.raises(MediaError, match="no frame lies in the chosen range"):
            read(path, selection)


def test_sizes_and_estimates(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", FRAMES)
    with open_media(path, Selection(every=5), size=24) as reader:
        assert (reader.height, reader.width) == (24, 32)
        assert reader.estimated_frames() in (2, 3)
        assert next(iter(reader)).pixels_HWC.shape == (24, 32, 3)
    assert read(path, size="10x20").size == (12, 20, 10)
    with pytest.raises(InputError, match="background"):
        read(path, background=(0, 0, 256))


# -- passes, threads, closing ---------------------------------------------------------------------------------


def test_a_reader_iterates_again_and_ends_the_pass_before(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", moving_frames(40))
    with open_media(path) as reader:
        early = iter(reader)
        next(early)
        assert [len(list(reader)), len(list(reader))] == [40, 40]
        with pytest.raises(MediaError, match="read anew"):
            list(early)
    with pytest.raises(MediaError, match="closed"):
        list(reader)


def test_stopping_early_and_closing_leaves_nothing_open(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", moving_frames(40))
    for _ in range(20):
        with open_media(path) as reader:
            next(iter(reader))
    open_files = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert str(path) not in open_files


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_closing_while_another_thread_reads_is_an_error_not_a_crash(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    frames = moving_frames(60, 96, 128)
    if name == "a.gif":
        images = [Image.fromarray(frame) for frame in frames]
        images[0].save(path, save_all=True, append_images=images[1:])
    else:
        encode(path, frames)
    for _ in range(8):
        reader = open_media(path)
        started, outcome = threading.Event(), []

        def work(reader: Any = reader, started: Any = started, outcome: Any = outcome) -> None:
            try:
                for _ in reader:
                    started.set()
            except MediaError as error:
                outcome.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        started.wait()
        reader.close()
        thread.join()
        assert len(outcome) <= 1


# -- what cannot be read --------------------------------------------------------------------------------------


def sound_file(path: Path, codec: str) -> Path:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=44100)
        stream.codec_context.layout = "mono"
        samples = np.zeros((1, 1152 * 4), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 44100
        if codec != "pcm_s16le":
            frame = av.AudioResampler(
                format=stream.codec_context.format, layout="mono", rate=44100, frame_size=1152
            ).resample(frame)[0]
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_sound_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for name, codec in (("a.wav", "pcm_s16le"), ("a.mp3", "libmp3lame"), ("a.mp4", "aac")):
        with pytest.raises(MediaError) as caught:
            read(sound_file(tmp_path / name, codec))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF"])
def test_a_truncated_still_is_an_error(kind: str) -> None:
    data = saved(Image.fromarray(FRAMES[0]), kind)
    for part in (0.2, 0.6, 0.9):
        with pytest.raises(MediaError) as caught:
            read(data[: int(len(data) * part)])
        assert "\n" not in str(caught.value)


def test_a_film_without_its_index_or_frames_is_an_error(tmp_path: Path) -> None:
    data = encode(tmp_path / "a.mp4", FRAMES).read_bytes()  # its index stands at the end
    with pytest.raises(MediaError, match="is not a picture or video"):
        read(data[: len(data) // 2])
    start = data.index(b"mdat") + 4
    spoiled = data[:start] + bytes(data.index(b"moov") - 4 - start) + data[data.index(b"moov") - 4 :]
    with pytest.raises(MediaError, match=r"no frame of it can be decoded|is not a picture"):
        read(spoiled)
