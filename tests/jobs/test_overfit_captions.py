"""From pixels to pixels: eight captioned scenes are prepared, encoded and learned; their captions give them back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokenreel.data.scenes import CaptionedScenes
from tokenreel.jobs.encode_many import encode_many
from tokenreel.jobs.generate import generate_video
from tokenreel.jobs.prepare import prepare_pixels
from tokenreel.jobs.train import train
from tokenreel.media.pixels import to_video
from tokenreel.media.read import read
from tokenreel.render import HEADS
from tokenreel.tokenizers import load
from tokenreel.tokens.shards import ShardReader

CLIPS, SIZE = 8, (17, 48, 48)


@pytest.mark.slow
def test_captions_give_their_clips_back(tmp_path: Path) -> None:
    """Each generated clip is nearest to the clip of its caption, in all five attributes: 40 of 40."""
    prepare_pixels([f"rendered:{CLIPS},{','.join(map(str, SIZE))}"], tmp_path / "pixels")
    encode_many([tmp_path / "pixels"], tmp_path / "tokens", tokenizer="video-fsq")
    changes = ["data.batches.batch_size=8", "data.batches.image_share=0", "masking.primed_share=0"]
    changes += ["loop.steps=300", "loop.checkpoint_every=1000", "loop.look_every=0", "optim.warmup_steps=20"]
    torch.set_num_threads(1)
    result = train(
        "tiny-maskgit", folder=tmp_path / "run", data=[str(tmp_path / "tokens")], overrides=changes, device="cpu"
    )
    scenes, reader = CaptionedScenes(CLIPS, *SIZE), ShardReader(tmp_path / "tokens")
    facts = [scenes._facts(index) for index in range(CLIPS)]
    assert [record.meta["caption"] for record in reader] == [fact["caption"] for fact in facts]
    tokenizer = load("video-fsq")
    clips = torch.stack(tokenizer.decode(tokenizer.encode([to_video(scenes._pixels(index)) for index in range(CLIPS)])))
    right, errors = 0, []
    for index, fact in enumerate(facts):
        made = generate_video(
            fact["caption"], tmp_path / f"{index}.png", model=result["generator"], changes={"temperature": 0.0}
        )
        video = to_video(read(made.path).frames_THWC)
        distance = (clips[:, :, : video.shape[1]] - video).square().flatten(1).mean(1)
        nearest = facts[int(distance.argmin())]["meta"]
        right += sum(nearest[head] == fact["meta"][head] for head in HEADS)
        errors.append(float(distance[index]))
    assert right == CLIPS * len(HEADS)
    assert max(errors) < 0.02  # the clip itself, not only the nearest of eight
