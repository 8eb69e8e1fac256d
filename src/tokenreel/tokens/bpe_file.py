"""Byte-pair merges as JSON: the project's own file, and the file of Hugging Face ``tokenizers``.

The own file, one object::

    {"format": "tokenreel.merges", "version": 1, "axes": "flat", "base_size": 256, "vocab_size": 258,
     "merges": [[97, 97], [256, 98]],          # by rank; in a grid [left, right, axis], axis 0 = t, 1 = h, 2 = w
     "counts": [4, 2],                         # how often each pair stood when it was merged, or null
     "meta": {...}, "sha256": "..."}           # of the merges and counts as JSON without spaces

Hugging Face's BPE model knows tokens by their text. So each base id becomes one character (``alphabet``) and a merged
id the characters it stands for; ids stay what they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tokenreel.errors import FormatError, InputError
from tokenreel.files import whole_file

__all__ = ["FORMAT", "VERSION", "alphabet", "digest", "hf_tokenizer", "read_json", "write_json"]

FORMAT = "tokenreel.merges"
VERSION = 1

_KEYS = {"axes": str, "base_size": int, "vocab_size": int, "merges": list, "meta": dict, "sha256": str}


def digest(merges: list[list[int]], counts: list[int] | None) -> str:
    """The checksum that the file holds."""
    return hashlib.sha256(json.dumps([merges, counts], separators=(",", ":")).encode()).hexdigest()


def write_json(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write an object as one JSON file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=True) + "\n", encoding="ascii")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a merges file and check all but the merges themselves.

    Raises:
        InputError: it cannot be read.
        FormatError: it is no merges file, is damaged, or is of a newer version.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read the merges file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not a merges file of tokenreel: it holds no JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        got = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise FormatError(f"{path} is not a merges file of tokenreel: its format is {got!r}, expected {FORMAT!r}")
    version = content.get("version")
    if not isinstance(version, int) or version < 1:
        raise FormatError(f"{path} is damaged: its version is {version!r}, expected a whole number of at least 1")
    if version > VERSION:
        raise FormatError(
            f"{path} has version {version} of the merges format, this tokenreel reads up to {VERSION}; "
            "install a newer tokenreel"
        )
    for key, kind in _KEYS.items():
        if not isinstance(content.get(key), kind):
            raise FormatError(f"{path} is damaged: {key!r} is {content.get(key)!r:.80}, expected {kind.__name__}")
    if digest(content["merges"], content.get("counts")) != content["sha256"]:
        raise FormatError(f"{path} is damaged: its merges do not have the checksum it states; train or copy it again")
    if content["vocab_size"] != content["base_size"] + len(content["merges"]):
        raise FormatError(
            f"{path} is damaged: vocab_size is {content['vocab_size']}, expected base_size {content['base_size']} "
            f"+ {len(content['merges'])} merges"
        )
    return content


def alphabet(base_size: int) -> list[str]:
    """The character for each base id in a Hugging Face file.

    Up to 256 ids: the byte alphabet of GPT-2, in which printable Latin-1 characters stand for themselves and the other
    68 bytes, in order, for U+0100, U+0101, ... Above: U+10000 + id, the characters beyond the surrogates; there
    are exactly 2^20.

    >>> alphabet(256)[ord("a")], alphabet(256)[ord(" ")], alphabet(1000)[5] == chr(0x10005)
    ('a', 'Ġ', True)
    """
    if base_size > 256:
        return [chr(0x10000 + i) for i in range(base_size)]
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(i if i in plain else next(others)) for i in range(256)][:base_size]


def hf_tokenizer(pairs: list[list[int]], base_size: int, *, byte_level: bool) -> dict[str, Any]:
    """The content of a ``tokenizer.json`` with a BPE model of these merges.

    Raises:
        InputError: two ids stand for the same characters, which that model cannot hold apart.
    """
    texts = alphabet(base_size)
    for left, right in pairs:
        texts.append(texts[left] + texts[right])
    vocab = {text: i for i, text in enumerate(texts)}
    if len(vocab) < len(texts):
        twin = next(i for i, text in enumerate(texts) if vocab[text] != i)
        raise InputError(
            f"the merged ids {twin} and {vocab[texts[twin]]} stand for equal base ids, which Hugging Face tokenizers "
            "cannot hold apart; merges that tokenreel trained have no such twins"
        )
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": level if byte_level else None,
        "post_processor": None,
        "decoder": level if byte_level else {"type": "Fuse"},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [[texts[left], texts[right]] for left, right in pairs],
        },
    }
