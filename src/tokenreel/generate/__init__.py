"""Tokens from prompts: text encoders, the masked transformer, its critics, and sampling (torch)."""

from __future__ import annotations

from .condition import Condition, label_condition
from .critic import Scorer, SelfCritic, TokenCritic, TokenCriticConfig, critic_labels
from .maskgit import MaskGIT
from .maskgit_config import MaskGITConfig
from .prime import prime_frames
from .sample import SampleStep
from .sample_orders import Order
from .scenes import make_scenes, make_video
from .schedule import SCHEDULES, mask_for_training, masked_count
from .storyboard import Scene, Storyboard
from .text import ByteText, ByteTextConfig, TextEncoder
from .text_t5 import T5Text
from .vocabulary import Vocabulary

__all__ = [
    "SCHEDULES",
    "ByteText",
    "ByteTextConfig",
    "Condition",
    "MaskGIT",
    "MaskGITConfig",
    "Order",
    "SampleStep",
    "Scene",
    "Scorer",
    "SelfCritic",
    "Storyboard",
    "T5Text",
    "TextEncoder",
    "TokenCritic",
    "TokenCriticConfig",
    "Vocabulary",
    "critic_labels",
    "label_condition",
    "make_scenes",
    "make_video",
    "mask_for_training",
    "masked_count",
    "prime_frames",
]
