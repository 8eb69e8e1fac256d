"""Scenes drawn by the project itself: the captioned world, clips with natural statistics, and the sample that ships."""

from __future__ import annotations

from .attributes import COMBINATIONS, HEADS, is_held_out
from .captions import caption, num_captions
from .draw import draw_plain_scene, draw_scene
from .gallery import gallery
from .motion import Both, Move, Then
from .natural import natural_clip
from .sample import sample_clip, sample_image
from .scene import Actor, Scene, frames, render
from .text import Label
from .textures import Solid, Texture
from .world import WorldObject, WorldScene, labels, render_clip, tracks

__all__ = [
    "COMBINATIONS",
    "HEADS",
    "Actor",
    "Both",
    "Label",
    "Move",
    "Scene",
    "Solid",
    "Texture",
    "Then",
    "WorldObject",
    "WorldScene",
    "caption",
    "draw_plain_scene",
    "draw_scene",
    "frames",
    "gallery",
    "is_held_out",
    "labels",
    "natural_clip",
    "num_captions",
    "render",
    "render_clip",
    "sample_clip",
    "sample_image",
    "tracks",
]
