"""Scenes drawn by the project itself: shapes, textures, motions, text, a camera; and the sample that ships."""

from __future__ import annotations

from .motion import Both, Move, Then
from .sample import sample_clip, sample_image
from .scene import Actor, Scene, frames, render
from .text import Label
from .textures import Solid, Texture

__all__ = [
    "Actor",
    "Both",
    "Label",
    "Move",
    "Scene",
    "Solid",
    "Texture",
    "Then",
    "frames",
    "render",
    "sample_clip",
    "sample_image",
]
