"""The model card that stands beside a tokenizer's weights (README.md of its folder)."""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .learned import LearnedTokenizer

__all__ = ["model_card"]


def model_card(tokenizer: LearnedTokenizer, fingerprint: str) -> str:
    """What it is, its sizes, and how to load it; training data and figures are for whoever trained it to add."""
    pt, ph, pw = tokenizer.patch_size
    papers = ", ".join(f"[arXiv {paper}](https://arxiv.org/abs/{paper})" for paper in tokenizer.papers)
    size = (16, 256, 256)
    count = tokenizer.num_tokens_of(size)
    bits_per_pixel = count * log2(tokenizer.codebook_size) / (size[0] * size[1] * size[2])
    return f"""---
library_name: tokenreel
tags: [video, image, tokenizer, {tokenizer.name}]
---
# A tokenreel tokenizer: {tokenizer.name}

{tokenizer.summary} {papers}.

| | |
|---|---|
| parameters | {tokenizer.num_parameters:,} |
| codebook | {tokenizer.codebook_size:,} codes |
| patch | {pt} x {ph} x {pw} (frames, height, width) |
| 16 frames 256x256 | {count:,} tokens, {bits_per_pixel:.4f} bits a pixel |
| fingerprint | `{fingerprint}` |

```python
import tokenreel as tr

tokenizer = tr.load("path/of/this/folder")
(tokens,) = tokenizer.encode([tr.to_video(tr.read("clip.mp4").frames_THWC)])
(video,) = tokenizer.decode([tokens])
```

Safe to load: safetensors and JSON only.
"""
