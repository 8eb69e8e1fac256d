"""Token shards of rendered clips with captions, and changes that make a generator's recipe tiny."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from tokenreel.data.pixel_manifest import PixelSpec
from tokenreel.data.scenes import CaptionedScenes
from tokenreel.jobs.encode_many import encode_many
from tokenreel.jobs.prepare import prepare_pixels
from tokenreel.media.pixels import to_video
from tokenreel.tokenizers import CViViT

STACK = "{dim: 32, depth: 1, num_heads: 2, head_dim: 16, mlp_dim: 32}"
TEXT = "{dim: 16, depth: 1, num_heads: 1, head_dim: 16, mlp_dim: 32}"
TINY = [f"model.changes.stack={STACK}", "model.changes.context_dim=16", f"model.changes.text.stack={TEXT}"]


def tokenizer_in(folder: Path, *, num_clips: int = 4, seed: int = 0) -> Path:
    """A C-ViViT that was never trained: a linear codec fitted to rendered scenes of 9 x 32 x 32."""
    base = CViViT.sizes["tiny"]
    stack = replace(base.encoder, dim=32, spatial_depth=1, temporal_depth=1, num_heads=2, head_dim=16, mlp_dim=64)
    model = CViViT.untrained(replace(base, encoder=stack, decoder=stack), seed=seed)
    scenes = CaptionedScenes(num_clips, 9, 32, 32)
    model.start_linear([to_video(scenes[number].array()) for number in range(num_clips)])
    return model.save_pretrained(folder)


def shards_in(root: Path, *, num_clips: int = 6, size: str = "9,32,32", seed: int = 0) -> Path:
    """Token shards of rendered, captioned scenes in ``root/shards``; their tokenizer is in ``root/tok``."""
    if not (root / "tok").exists():
        tokenizer_in(root / "tok", seed=seed)
    prepare_pixels([f"rendered:{num_clips},{size}"], root / "scenes", spec=PixelSpec(quality=None), num_threads=1)
    encode_many([root / "scenes"], root / "shards", tokenizer=str(root / "tok"))
    return root / "shards"


def tiny_t5(folder: Path) -> Path:
    """A random T5 encoder of 16 channels that knows a few words."""
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    from tokenizers import Tokenizer as Backend

    words = ["<pad>", "</s>", "<unk>", "a", "red", "circle"]
    backend = Backend(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": 6, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu")).save_pretrained(folder)
    return folder
