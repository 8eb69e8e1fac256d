"""The words of captions: what every attribute, motion and background is called.

A word stands for one attribute only, so a caption never says what is not seen.
"""

from __future__ import annotations

__all__ = ["ADJECTIVES", "COLOUR_WORDS", "MOTION_WORDS", "NOUNS", "PLACES", "SIZE_WORDS", "WITH", "conjugated"]

NOUNS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "square block", "box"),
    "triangle": ("triangle", "three-sided shape"),
    "star": ("star", "five-pointed star"),
    "ring": ("ring", "hoop"),
    "cross": ("cross", "plus sign"),
    "heart": ("heart", "heart shape"),
}

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "bright red"),
    "orange": ("orange",),
    "yellow": ("yellow", "bright yellow"),
    "green": ("green",),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose-coloured"),
    "brown": ("brown",),
    "white": ("white",),
    "black": ("black",),
}

SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium-sized", "middle-sized"),
    "large": ("large", "big"),
}

ADJECTIVES: dict[str, tuple[str, ...]] = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripy"),
    "checkered": ("checkered", "checked"),
    "dotted": ("dotted", "spotted", "polka-dot"),
}
"""Before or behind the colour."""

WITH: dict[str, tuple[str, ...]] = {
    "plain": (),
    "striped": ("with stripes", "covered in stripes"),
    "checkered": ("with a checkered pattern", "covered in checks"),
    "dotted": ("with dots", "covered in dots", "with spots"),
}
"""Behind the noun."""

PLACES: dict[str, tuple[str, ...]] = {
    "white": ("on a white background", "on white", "in front of a plain white wall"),
    "gray": ("on a gray background", "on a grey background", "in front of a plain gray wall"),
    "black": ("on a black background", "on black", "in front of a plain black wall"),
    "navy": ("on a navy background", "on a dark blue background", "in front of a plain navy wall"),
    "cream": ("on a cream background", "on a cream-coloured background", "in front of a plain cream wall"),
    "pale green": ("on a pale green background", "on a light green background", "in front of a pale green wall"),
    "pale blue": ("on a pale blue background", "on a light blue background", "in front of a pale blue wall"),
    "night sky": ("in the night sky", "against a night sky", "in a dark night sky"),
    "morning sky": ("in the morning sky", "against a morning sky", "in a bright morning sky"),
    "sunset": ("in the sunset", "against a sunset", "in a warm sunset sky"),
    "mist": ("in the mist", "in gray mist", "in front of gray mist"),
    "clouds": ("in the clouds", "against a cloudy sky", "among white clouds"),
    "grass": ("on grass", "on a meadow", "over green grass"),
    "sand": ("on sand", "on a beach", "over yellow sand"),
    "brick wall": ("in front of a brick wall", "against a brick wall", "before a wall of red bricks"),
    "stone wall": ("in front of a stone wall", "against a stone wall", "before a wall of gray stones"),
    "checkerboard": ("on a checkerboard", "on a pale checkerboard", "above a checkerboard floor"),
    "pebbles": ("on pebbles", "over gray pebbles", "on a ground of pebbles"),
}

_GO = ("moves", "slides", "drifts", "glides", "goes", "travels", "floats")
_SIDES = {
    "left": ("left", "to the left", "leftwards"),
    "right": ("right", "to the right", "rightwards"),
    "up": ("up", "upwards", "towards the top"),
    "down": ("down", "downwards", "towards the bottom"),
}

MOTION_WORDS: dict[str, tuple[str, ...]] = {
    "still": ("stays still", "stands still", "does not move", "stays where it is", "rests", "keeps still"),
    **{kind: tuple(f"{verb} {side}" for verb in _GO for side in sides) for kind, sides in _SIDES.items()},
    "circle": ("moves in a circle", "goes round in a circle", "circles around", "travels along a circle",
               "runs around in a circle", "follows a circular path"),
    "bounce": ("bounces", "bounces up and down", "hops up and down", "jumps up and down", "hops", "jumps"),
    "grow": ("grows", "grows larger", "gets bigger", "becomes larger", "gets larger", "expands"),
    "spin": ("spins", "spins around", "rotates", "turns on the spot", "spins on the spot", "rotates on the spot"),
}  # fmt: skip
"""In the third person: the verb is the first word."""

_ING = {
    "moves": "moving", "slides": "sliding", "drifts": "drifting", "glides": "gliding", "goes": "going",
    "travels": "travelling", "floats": "floating", "stays": "staying", "stands": "standing", "does": "not moving",
    "rests": "resting", "keeps": "keeping", "circles": "circling", "runs": "running", "follows": "following",
    "bounces": "bouncing", "hops": "hopping", "jumps": "jumping", "grows": "growing", "gets": "getting",
    "becomes": "becoming", "expands": "expanding", "spins": "spinning", "rotates": "rotating", "turns": "turning",
}  # fmt: skip


def conjugated(words: str) -> str:
    """A motion's words from the third person to the participle.

    >>> conjugated("moves to the left"), conjugated("does not move")
    ('moving to the left', 'not moving')
    """
    verb, _, rest = words.partition(" ")
    if verb == "does":
        return _ING[verb]
    return f"{_ING[verb]} {rest}".strip()
