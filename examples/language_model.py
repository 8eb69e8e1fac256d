"""A next-token model of 2 million parameters on the tokens of rendered, captioned clips; it draws one continuation.

Clips -> raw tokens -> byte-pair merges -> rows ``BOS caption SEP ids EOS`` -> a small decoder-only transformer. Given a
caption and the first frame, the model continues the clip. The default only shows that it learns; ``--steps 1500`` takes
some ten minutes on two cores and draws recognisable motion.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import tokenreel as tr
from tokenreel.data.language import LanguageVocabulary, pack_rows
from tokenreel.render import Actor, Move, Scene, Solid, render
from tokenreel.tokens import bpe

COLOURS = {"red": (220, 60, 50), "green": (70, 180, 80), "blue": (60, 90, 220), "yellow": (240, 200, 60)}
SIDE, FRAMES, CONTEXT = 16, 6, 256


def clip(rng: np.random.Generator) -> tuple[tr.Clip, str]:
    """One object on a dark ground, and its caption."""
    shape, colour = rng.choice(["circle", "square", "triangle"]), rng.choice(list(COLOURS))
    motion = rng.choice(["left", "right", "up", "down"])
    actor = Actor(shape=str(shape), size=0.45, motion=Move(kind=str(motion), reach=0.9), colour=COLOURS[str(colour)])
    scene = Scene(height=SIDE, width=SIDE, num_frames=FRAMES, background=Solid((24, 24, 32)), actors=(actor,))
    rendered = render(scene)
    # 16 levels a channel: edges have few shades, as after a tokenizer with a small codebook
    frames = (rendered.frames_THWC // 16 * 17).astype(np.uint8)
    return tr.Clip(frames_THWC=frames, pts_seconds=rendered.pts_seconds), f"a {colour} {shape} moves {motion}"


class NextToken(nn.Module):
    """A pre-norm decoder with learned positions and tied embeddings."""

    def __init__(self, vocab_size: int, dim: int = 192, depth: int = 4, num_heads: int = 6) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.embed = nn.Embedding(vocab_size, dim)
        self.position = nn.Embedding(CONTEXT, dim)
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(dim),
                    "qkv": nn.Linear(dim, 3 * dim),
                    "out": nn.Linear(dim, dim),
                    "norm2": nn.LayerNorm(dim),
                    "up": nn.Linear(dim, 4 * dim),
                    "down": nn.Linear(4 * dim, dim),
                }
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, ids_BL: torch.Tensor) -> torch.Tensor:
        x_BLD = self.embed(ids_BL) + self.position.weight[: ids_BL.shape[1]]
        for block in self.blocks:
            qkv = block["qkv"](block["norm1"](x_BLD)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
            x_BLD = x_BLD + block["out"](attended.transpose(1, 2).flatten(2))
            x_BLD = x_BLD + block["down"](F.gelu(block["up"](block["norm2"](x_BLD))))
        return self.norm(x_BLD) @ self.embed.weight.T


def sequences_of(count: int, seed: int) -> tuple[list[tr.Tokens], LanguageVocabulary, bpe.Merges, list[np.ndarray]]:
    """Clips as tokens, the vocabulary, the merges, and each clip as one sequence of ids."""
    rng, tokenizer = np.random.default_rng(seed), tr.load(f"raw:1,{SIDE},{SIDE}")
    clips = []
    for _ in range(count):
        made, caption = clip(rng)
        [tokens] = tokenizer.encode([np.moveaxis(made.frames_THWC, -1, 0)])
        clips.append(tokens.with_meta(caption=caption))
    frames = [tokens.ids_L.reshape(FRAMES, -1) for tokens in clips]  # merged frame by frame: a clip can be cut anywhere
    merges = bpe.train([frame for one in frames for frame in one], vocab_size=768)
    vocabulary = LanguageVocabulary(codebook_size=merges.vocab_size)
    merged = [np.concatenate(merges.encode_many(list(one))) for one in frames]
    sequences = [vocabulary.encode(ids, tokens.meta["caption"]) for ids, tokens in zip(merged, clips)]
    return clips, vocabulary, merges, sequences


@torch.no_grad()
def continued(model: NextToken, prefix: np.ndarray, vocabulary: LanguageVocabulary) -> np.ndarray:
    """Greedy next tokens until the model ends the clip or the context is full."""
    ids = torch.from_numpy(prefix)[None]
    while ids.shape[1] < CONTEXT and int(ids[0, -1]) != vocabulary.eos_id:
        ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
    return ids[0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("continuation.gif"))
    args = parser.parse_args()
    torch.manual_seed(0)
    clips, vocabulary, merges, sequences = sequences_of(400, seed=0)
    lengths = [len(sequence) for sequence in sequences]
    print(f"{len(clips)} clips of {clips[0].num_tokens} bytes; merged and captioned: {np.mean(lengths):.0f} ids each")
    rows = list(pack_rows(sequences, vocabulary, context=CONTEXT, keep_last=False))
    batches = torch.from_numpy(np.stack([row.ids_S for row in rows]))
    model = NextToken(vocabulary.vocab_size)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(rows)} rows of {CONTEXT} ids")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    start = time.perf_counter()
    for step in range(args.steps):
        batch = batches[torch.randint(0, len(batches), (4,))]
        logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), ignore_index=vocabulary.pad_id)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % max(1, args.steps // 10) == 0 or step == args.steps - 1:
            print(f"step {step:5d}  loss {loss.item():.3f}  {time.perf_counter() - start:.0f} s", flush=True)

    tokens = clips[0]
    frame_bytes = SIDE * SIDE * 3
    prefix = vocabulary.encode(merges.encode(tokens.ids_L[:frame_bytes]), tokens.meta["caption"])[:-1]
    _, visual = vocabulary.decode(continued(model, prefix, vocabulary))
    drawn = merges.decode(visual)
    frames = np.zeros(FRAMES * frame_bytes, np.uint8)  # what the model did not draw stays black
    frames[: min(len(drawn), len(frames))] = drawn[: len(frames)]
    video = frames.reshape(FRAMES, SIDE, SIDE, 3)
    truth = tokens.ids_L.reshape(FRAMES, SIDE, SIDE, 3)
    both = np.concatenate([truth, video], axis=2).repeat(8, axis=1).repeat(8, axis=2)
    tr.write(args.output, tr.Clip(frames_THWC=both, pts_seconds=np.arange(FRAMES) / 6, fps=6.0))
    close = np.abs(truth[1:].astype(int) - video[1:]).mean()
    print(
        f"{args.output}: {tokens.meta['caption']!r}, true | continued from one frame; mean difference {close:.1f}/255"
    )


if __name__ == "__main__":
    main()
