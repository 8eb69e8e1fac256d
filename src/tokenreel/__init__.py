"""Pictures and video to tokens, and tokens to pictures again."""

from __future__ import annotations

__version__ = "0.1.0"
