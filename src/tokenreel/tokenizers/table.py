"""Every tokenizer family by name. Importing this brings torch; ``tokenizers.load`` does so only where it must."""

from __future__ import annotations

from .cvivit import CViViT
from .learned import LearnedTokenizer
from .raw import RawTokenizer
from .titok import TiTok
from .titok_video import TiTokVideo

__all__ = ["LEARNED", "TOKENIZERS"]

LEARNED: dict[str, type[LearnedTokenizer]] = {"cvivit": CViViT, "titok": TiTok, "titok_video": TiTokVideo}

TOKENIZERS: dict[str, type[RawTokenizer] | type[LearnedTokenizer]] = {"raw": RawTokenizer, **LEARNED}
