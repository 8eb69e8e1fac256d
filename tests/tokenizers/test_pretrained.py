"""The tokenizers that ship: found by name, whole, and as good as their cards say."""

from __future__ import annotations

import inspect
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tokenreel
from tokenreel.cli.tokens import encode
from tokenreel.data.opening import open_collection
from tokenreel.errors import InputError
from tokenreel.jobs.encode import decode_file, encode_file
from tokenreel.measure.protocol import Protocol
from tokenreel.media.pixels import to_video
from tokenreel.media.read import read
from tokenreel.render import natural_clip
from tokenreel.samples import SAMPLE_CLIP
from tokenreel.tokenizers import load
from tokenreel.tokenizers.hub import DEFAULT, pretrained_folder, pretrained_names
from tokenreel.tokenizers.learned import LearnedTokenizer

torch.set_num_threads(1)

PRETRAINED = Path(tokenreel.__file__).parent / "pretrained"
NAMES = pretrained_names()
MEBIBYTES = {"video-fsq": 14, "image-titok": 8, "video-titok": 8, "world-codes": 1}
ALL_MEBIBYTES = 36


def level_of(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / float((a - b).square().mean()))


def rendered() -> list[Tensor]:
    """The set that stands in the cards: four clips with natural statistics, 9 frames 128x128."""
    return [to_video(natural_clip(seed, num_frames=9, height=128, width=128).frames_THWC) for seed in range(4)]


def card_of(name: str) -> str:
    return (PRETRAINED / name / "README.md").read_text()


def test_the_default_ships() -> None:
    assert DEFAULT in NAMES
    assert inspect.signature(encode).parameters["tokenizer"].default == DEFAULT
    assert pretrained_folder("../pretrained") is None
    assert pretrained_folder("nothing-of-the-kind") is None
    with pytest.raises(InputError, match=r"known names: .*video-fsq.*raw"):
        load("nothing-of-the-kind")


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_by_name_and_is_small(name: str) -> None:
    model = load(name)
    assert isinstance(model, LearnedTokenizer)
    assert model.source == name
    assert model.fingerprint == json.loads((PRETRAINED / name / "config.json").read_text())["fingerprint"]
    size = sum(file.stat().st_size for file in (PRETRAINED / name).iterdir())
    assert size <= MEBIBYTES[name] * 2**20


def test_all_together_are_small() -> None:
    assert sum(file.stat().st_size for file in PRETRAINED.rglob("*") if file.is_file()) <= ALL_MEBIBYTES * 2**20


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_all(name: str) -> None:
    card = card_of(name)
    for word in ("## Data", "## Recipe", "## Figures", "## Limits", "## Attribution", "tokenreel train", "PSNR"):
        assert word in card, word


@pytest.mark.parametrize("name", NAMES)
def test_rendered_clips_are_as_good_as_the_card_says(name: str) -> None:
    said = re.search(r"\| rendered set \| ([\d.]+) dB \|", card_of(name))
    assert said is not None
    model = load(name)
    levels = [level_of(model.decode(model.encode([video]))[0], video) for video in rendered()]
    assert abs(float(np.mean(levels)) - float(said[1])) < 0.1


def figures_of(name: str) -> dict[tuple[str, int | None], float]:
    """What the card says of real clips: the set and the tokens (None: as many as there are) to dB."""
    rows = re.findall(r"^\| (13 clips|Kodak)[^|]*?(?:, (\d+) tokens)? \| ([\d.]+) dB", card_of(name), re.MULTILINE)
    return {(place, int(count) if count else None): float(level) for place, count, level in rows}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_real_clips_are_as_good_as_the_card_says(name: str, data_dir: Path) -> None:
    said = figures_of(name)
    assert said, "the card names no figure of real clips"
    for (place, count), level in said.items():
        folder, protocol = {
            "13 clips": ("clips/eval", Protocol(frames=17, size=128 if name == "video-titok" else 256)),
            "Kodak": ("images/kodak24", Protocol(frames=1)),
        }[place]
        found, model = open_collection(data_dir / folder), load(name)
        options: dict[str, Any] = {} if count is None else {"token_counts": count}
        levels = []
        for index in range(len(found)):
            video = to_video(protocol.read(found[index]).frames_THWC)
            (decoded,) = model.decode(model.encode([video], **options))
            levels.append(level_of(decoded, video))
        assert abs(float(np.mean(levels)) - level) < 0.1, (place, count)


def test_files_name_it_and_are_decoded_without_being_told(tmp_path: Path) -> None:
    made = encode_file(SAMPLE_CLIP, tmp_path / "a.tokens", tokenizer=DEFAULT, size=64)
    assert made.header.meta["tokenizer_source"] == DEFAULT
    decode_file(tmp_path / "a.tokens", tmp_path / "a.mkv")
    assert read(tmp_path / "a.mkv").frames_THWC.shape == read(SAMPLE_CLIP, size=64).frames_THWC.shape


def test_a_still_scene_holds() -> None:
    """Prediction adds to what it added before; a stream must not fade."""
    model = load(DEFAULT)
    still = rendered()[0][:, :1, :64, :64].expand(-1, 121, -1, -1)
    decoded = model.decode(model.encode([still]))[0]
    early, late = (level_of(decoded[:, t], still[:, 0]) for t in (8, 120))
    assert late > early - 3
