from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest
from PIL import Image
from rendered import encode, moving_frames

from tokenreel.errors import MediaError
from tokenreel.media.read import open_media, read
from tokenreel.media.source import open_source


class Pipe(io.RawIOBase):
    """A stream that cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        return self._data.readinto(buffer)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("source") / "clip.mp4", moving_frames(5))


def test_path_bytes_file_and_pipe_give_the_same(clip_path: Path) -> None:
    data = clip_path.read_bytes()
    expected = read(clip_path).frames_THWC
    with clip_path.open("rb") as file:
        for source in (
            str(clip_path),
            data,
            bytearray(data),
            io.BytesIO(data),
            file,
            Pipe(data),
            io.BufferedReader(Pipe(data)),
        ):
            assert (read(source).frames_THWC == expected).all()  # type: ignore[arg-type]
        assert not file.closed  # what the caller opened, the caller closes


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG"])
def test_pictures_come_from_files_too_and_leave_them_open(kind: str) -> None:
    file = io.BytesIO()
    images = [Image.fromarray(frame) for frame in moving_frames(3)]
    images[0].save(file, kind, save_all=True, append_images=images[1:]) if kind != "JPEG" else images[0].save(
        file, kind
    )
    expected = read(file).frames_THWC
    assert not file.closed
    for source in (file.getvalue(), Pipe(file.getvalue())):
        assert (read(source).frames_THWC == expected).all()
    with pytest.raises(MediaError):
        read(io.BytesIO(file.getvalue()[:100]))


def test_a_fifo_is_read_like_a_file(clip_path: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    feeder = threading.Thread(target=lambda: fifo.write_bytes(clip_path.read_bytes()))
    feeder.start()
    assert len(read(fifo)) == 5
    feeder.join()


def test_a_reader_over_bytes_iterates_twice_and_chooses(clip_path: Path) -> None:
    from tokenreel.media.frames import Selection

    with open_media(clip_path.read_bytes()) as reader:
        assert [len(list(reader)), len(list(reader))] == [5, 5]
    assert len(read(io.BytesIO(clip_path.read_bytes()), Selection(uniform=3))) == 3


def refused(source: object) -> str:
    with pytest.raises(MediaError) as caught:
        open_media(source)  # type: ignore[arg-type]
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text


def test_what_is_no_source_is_refused_in_one_sentence(tmp_path: Path, clip_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert "does not exist" in refused(tmp_path / "missing.mp4")
    assert "is a folder" in refused(tmp_path)
    assert "is empty" in refused(empty)
    assert "is empty" in refused(b"")
    assert "cannot be read" in refused("a\0b.mp4")
    assert "path, bytes or an open" in refused(7)
    assert "binary mode" in refused(io.StringIO("text"))
    with clip_path.open() as text:
        assert "binary mode" in refused(text)
    closed = io.BytesIO(b"abc")
    closed.close()
    assert "closed" in refused(closed)


PLAYLISTS = {
    "playlist.mp4": "#EXTM3U\n#EXTINF:5,\n{clip}\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile '{clip}'\n",
    "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "text.mp4": "This is a text, not a film.\n" * 40,
    "page.mp4": "<!DOCTYPE html><html><video src='{clip}'></video></html>",
    "dash.mp4": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>{clip}</BaseURL></MPD>",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_text_of_any_kind_is_refused_and_opens_nothing(name: str, tmp_path: Path, clip_path: Path) -> None:
    path = tmp_path / name
    path.write_text(PLAYLISTS[name].format(clip=clip_path))
    assert "is not a picture or video" in refused(path)
    assert "is not a picture or video" in refused(path.read_bytes())


def test_a_name_that_looks_like_a_protocol_is_a_file(
    clip_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipe:0").write_bytes(clip_path.read_bytes())
    assert len(read("pipe:0")) == 5
    assert "does not exist" in refused("http://127.0.0.1:9/a.mp4")


def test_kinds_are_told_by_content_not_by_name(tmp_path: Path, clip_path: Path) -> None:
    picture = tmp_path / "picture.mp4"
    Image.new("RGB", (8, 8)).save(picture, format="PNG")
    assert open_source(picture).kind == "picture"
    assert open_source(clip_path).kind == "video"
    avif = tmp_path / "a.bin"
    Image.new("RGB", (8, 8)).save(avif, format="AVIF")
    assert open_source(avif).kind == "picture"
    data = avif.read_bytes()
    as_mif1 = data.replace(b"ftypavif", b"ftypmif1", 1)
    assert open_source(as_mif1).kind == "picture"  # avif stands among its compatible brands
    assert "HEIC" in refused(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64))
