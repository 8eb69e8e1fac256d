"""A video to the sequence that a Vision Transformer reads, the proof that it is exact, and a layer that reads it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

import tokenreel as tr
from tokenreel.jobs.check import check_file
from tokenreel.jobs.patchify import patchify_file
from tokenreel.jobs.sequence import SequenceConfig
from tokenreel.samples import SAMPLE_CLIP


def main() -> None:
    torch.manual_seed(0)
    chosen = tr.Selection(uniform=4)
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "pixels.safetensors"
        print(
            "patchify ", patchify_file(SAMPLE_CLIP, pixels, selection=chosen).as_json()["patches"], "patches of bytes"
        )
        print("check    ", "exact:", check_file(pixels, SAMPLE_CLIP).exact)

        vectors = Path(folder) / "vectors.safetensors"
        config = SequenceConfig(embed="linear", dim=768, position="sincos", dtype="float32")
        patchify_file(SAMPLE_CLIP, vectors, config, chosen)
        checked = check_file(vectors, SAMPLE_CLIP)
        print("embedded ", "exact:", checked.exact, "largest error before rounding:", checked.embedding_error)

        sequence = load_file(vectors)
        for name, tensor in sequence.items():
            print("tensor   ", name, tuple(tensor.shape), tensor.dtype)

        layer = nn.TransformerEncoderLayer(768, 8, 1536, batch_first=True, norm_first=True).eval()
        with torch.no_grad():
            first_frame = sequence["patches"][sequence["positions"][:, 0] == 0]
            print("layer    ", tuple(layer(first_frame[None]).shape), "from the patches of the first frame")


if __name__ == "__main__":
    main()
