"""Sentences with choices in them: a phrase is a word, a choice between phrases, or phrases in a row.

Choices can be counted and spoken at random without being written out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

__all__ = ["OneOf", "Phrase", "Row", "count", "every", "speak"]


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of several phrases, each as likely as the others."""

    options: tuple[Phrase, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Phrases one after the other, with nothing between them."""

    parts: tuple[Phrase, ...]


Phrase = str | OneOf | Row


def count(phrase: Phrase) -> int:
    """How many ways there are to say it.

    >>> count(Row(("a ", OneOf(("red", "blue")), OneOf((" ring", " disc", " star")))))
    6
    """
    match phrase:
        case OneOf(options):
            return sum(count(option) for option in options)
        case Row(parts):
            return prod(count(part) for part in parts)
    return 1


def speak(phrase: Phrase, rng: np.random.Generator) -> str:
    """One way to say it, at random."""
    match phrase:
        case OneOf(options):
            return speak(options[int(rng.integers(len(options)))], rng)
        case Row(parts):
            return "".join([speak(part, rng) for part in parts])
    return phrase


def every(phrase: Phrase) -> Iterator[str]:
    """All ways to say it, one by one."""
    match phrase:
        case OneOf(options):
            for option in options:
                yield from every(option)
        case Row(parts):
            for said in product(*(list(every(part)) for part in parts)):
                yield "".join(said)
        case _:
            yield phrase
