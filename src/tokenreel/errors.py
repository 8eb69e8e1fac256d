"""Every error that tokenreel raises on purpose, in one tree.

::

    TokenReelError                  (Exception)
    ├── InputError                  (ValueError)   what the caller gave cannot be used; command line: exit 2
    │   ├── MediaError                             a picture or video that cannot be read or written
    │   ├── FormatError                            a file of ours that is damaged, foreign or newer than this version
    │   └── MismatchError                          two things that do not belong together (fingerprint, size, codebook)
    ├── TrainingError                              a training run that cannot go on; its checkpoints are whole
    └── MissingExtraError           (ImportError)  an optional package is not installed; the text holds the install line

    TokenReelWarning                (UserWarning)  the work went on, but the result is not the usual one (cut-off file)

Messages say what was wrong, which value came, and what to do, in one sentence.
"""

from __future__ import annotations

__all__ = [
    "FormatError",
    "InputError",
    "MediaError",
    "MismatchError",
    "MissingExtraError",
    "TokenReelError",
    "TokenReelWarning",
    "TrainingError",
]


class TokenReelError(Exception):
    """Base of every error raised on purpose."""


class InputError(TokenReelError, ValueError):
    """What the caller gave cannot be used."""


class MediaError(InputError):
    """A picture or video that cannot be read or written."""


class FormatError(InputError):
    """A file of ours that is damaged, foreign, or written by a newer version."""


class MismatchError(InputError):
    """Two things that do not belong together: a foreign fingerprint, another size, another codebook."""


class TrainingError(TokenReelError):
    """A training run that cannot go on: numbers that are not finite, memory or disk that ran out."""


class MissingExtraError(TokenReelError, ImportError):
    """An optional package is missing; the message holds the line that installs it."""


class TokenReelWarning(UserWarning):
    """Work went on, but its result differs from what a sound input would give."""
