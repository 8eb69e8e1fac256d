"""A trained tokenizer into the package, in half precision; its card is written by hand and stays.

python dev/ship_tokenizer.py RUN/tokenizer video-fsq
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenreel.tokenizers import load
from tokenreel.tokenizers.learned import LearnedTokenizer

PRETRAINED = Path(__file__).parents[1] / "src" / "tokenreel" / "pretrained"


def main() -> None:
    """Save it, and say its size and fingerprint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("name")
    args = parser.parse_args()
    model = load(args.folder)
    if not isinstance(model, LearnedTokenizer):
        raise SystemExit(f"{args.folder} holds no weights")
    target = PRETRAINED / args.name
    card = target / "README.md"
    text = card.read_text() if card.is_file() else None
    model.save_pretrained(target, half=True, card=text)
    size = sum(file.stat().st_size for file in target.iterdir())
    print(f"{target}: {size / 2**20:.2f} MiB, {load(str(target)).fingerprint}")


if __name__ == "__main__":
    main()
