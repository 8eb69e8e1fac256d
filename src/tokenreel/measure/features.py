"""Distances between originals and reconstructions in the eyes of a network: rFID, rFVD and JEDi's MMD.

The network is a TorchScript file that the user brings; a JSON file of the same name beside it may say how it wants to
be called. What was called, and how, is part of the figure.

Letters: C channels, T frames, H W pixels, N vectors, D dim.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from tokenreel.errors import FormatError, InputError

from .distance import Moments, frechet_distance, polynomial_mmd

__all__ = ["METRICS", "Extractor", "FeatureMeter", "FeatureScore", "parse_features"]

METRICS: dict[str, tuple[str, str]] = {
    "rfid": ("frames", "frechet"),
    "rfvd": ("clips", "frechet"),
    "jedi": ("clips", "mmd"),
}
"""Name: what one feature vector is of, and the distance."""

_FRAMES_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Extractor:
    """A TorchScript file and how it is called.

    It is given frames (T, 3, H, W) or one clip (1, 3, T, H, W), and gives (N, D); more axes are flattened.

    Attributes:
        path: the file.
        size: frames are resized to size x size first (bilinear, antialiased), or not at all.
        range: ``signed`` ([-1, 1]), ``unit`` ([0, 1]) or ``bytes`` (uint8).
        frames: only the first this many frames of a clip, where the network takes a fixed number.
        arguments: further keyword arguments of the call, such as ``return_features``.
    """

    path: Path
    size: int | None = None
    range: Literal["signed", "unit", "bytes"] = "signed"
    frames: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Extractor:
        """The file, and the JSON file of the same name beside it if there is one.

        Raises:
            InputError: there is no such file. FormatError: the JSON file is damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no feature extractor {path}; give a TorchScript file")
        described = path.with_suffix(".json")
        if not described.is_file():
            return cls(path=path)
        known = ("size", "range", "frames", "arguments")
        try:
            values = json.loads(described.read_text())
            wrong = sorted(set(values) - set(known))
        except (ValueError, TypeError, OSError) as error:
            raise FormatError(f"{described} does not describe a feature extractor ({error})") from error
        if wrong or values.get("range", "signed") not in ("signed", "unit", "bytes"):
            raise FormatError(
                f"{described} must hold only {', '.join(known)}, with range signed, unit or bytes; got {values}"
            )
        return cls(path=path, **values)

    def sha256(self) -> str:
        """Of the file, as hexadecimal text."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def load(self) -> Callable[..., Any]:
        """The network, on the CPU, in evaluation mode.

        Raises:
            FormatError: the file is no TorchScript.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", DeprecationWarning
                )  # torch prefers torch.export; the files are out there
                network = torch.jit.load(str(self.path), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise FormatError(
                f"{self.path} is no TorchScript file ({reason}); export it with torch.jit.save"
            ) from error
        network.eval()
        return network  # type: ignore[no-any-return]

    def sentence(self) -> str:
        """How it is called, in words."""
        resize = "at the protocol's size" if self.size is None else f"resized to {self.size}x{self.size}"
        frames = "" if self.frames is None else f", the first {self.frames} frames"
        return f"{self.path.name}, {resize}, range {self.range}{frames}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureScore:
    """One figure with its protocol."""

    name: str
    value: float
    num_vectors: int
    dim: int
    unit: str
    extractor: Extractor
    sha256: str

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "value": self.value,
            "distance": METRICS[self.name][1],
            "vectors": self.num_vectors,
            "dim": self.dim,
            "of": self.unit,
            "extractor": self.extractor.path.name,
            "extractor_sha256": self.sha256,
            "resize": self.extractor.size,
            "range": self.extractor.range,
            "frames": self.extractor.frames,
            "arguments": dict(self.extractor.arguments),
            "few": self.num_vectors <= self.dim,
        }


class FeatureMeter:
    """Features of originals and reconstructions as they come, and the distance between the two sets."""

    def __init__(self, name: str, extractor: Extractor) -> None:
        if name not in METRICS:
            raise InputError(f"no feature distance is called {name!r}; known are {', '.join(METRICS)}")
        self.name, self.extractor = name, extractor
        self.unit, self._distance = METRICS[name]
        self._network = extractor.load()
        self._moments = (Moments(), Moments())
        self._vectors: tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]] = ([], [])

    def add(self, original_CTHW: Tensor, decoded_CTHW: Tensor) -> None:
        """One clip twice, float32 in [0, 1]."""
        for side, video in enumerate((original_CTHW, decoded_CTHW)):
            features = self.features(video)
            self._moments[side].add(features)
            if self._distance == "mmd":
                self._vectors[side].append(features)

    def score(self) -> FeatureScore:
        """The distance.

        Raises:
            InputError: fewer than two vectors came.
        """
        original, decoded = self._moments
        if original.count < 2:
            raise InputError(f"{self.name} needs at least 2 {self.unit}, got {original.count}; give more clips")
        if self._distance == "frechet":
            value = frechet_distance(original, decoded)
        else:
            value = 100 * polynomial_mmd(*(np.concatenate(vectors) for vectors in self._vectors))
        return FeatureScore(
            name=self.name,
            value=value,
            num_vectors=original.count,
            dim=len(original.mean_D),
            unit=self.unit,
            extractor=self.extractor,
            sha256=self.extractor.sha256(),
        )

    @torch.no_grad()
    def features(self, video_CTHW: Tensor) -> npt.NDArray[Any]:
        """(N, D) of one video in [0, 1]: N = T for frames, 1 for clips."""
        frames_TCHW = self._prepared(rearrange(video_CTHW, "C T H W -> T C H W"))
        if self.unit == "frames":
            parts = [self._call(part) for part in torch.split(frames_TCHW, _FRAMES_AT_ONCE)]
            return np.concatenate(parts)
        return self._call(rearrange(frames_TCHW, "T C H W -> 1 C T H W"))

    def _prepared(self, frames_TCHW: Tensor) -> Tensor:
        want = self.extractor
        if self.unit == "clips" and want.frames is not None:
            if len(frames_TCHW) < want.frames:
                raise InputError(f"{want.path.name} wants {want.frames} frames, a clip has {len(frames_TCHW)}")
            frames_TCHW = frames_TCHW[: want.frames]
        if want.size is not None:
            frames_TCHW = torch.nn.functional.interpolate(
                frames_TCHW, (want.size, want.size), mode="bilinear", antialias=True, align_corners=False
            ).clamp(0, 1)
        if want.range == "bytes":
            return (frames_TCHW * 255).round().to(torch.uint8)
        return frames_TCHW * 2 - 1 if want.range == "signed" else frames_TCHW

    def _call(self, batch: Tensor) -> npt.NDArray[Any]:
        try:
            features = self._network(batch, **self.extractor.arguments)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{self.extractor.path.name} does not take {tuple(batch.shape)}: {reason}") from error
        if not isinstance(features, Tensor) or features.ndim < 2 or len(features) != len(batch):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise InputError(
                f"{self.extractor.path.name} must give features ({len(batch)}, D) for {tuple(batch.shape)}, got {got}"
            )
        return features.double().flatten(1).numpy()


def parse_features(text: str, *, is_video: bool) -> tuple[str, Extractor]:
    """``rfid=FILE``, ``rfvd=FILE``, ``jedi=FILE``, or a FILE alone: rfvd of video, rfid of pictures.

    Raises:
        InputError: the name or the file is unknown.
    """
    name, equals, path = text.partition("=")
    if not equals or Path(text).is_file():
        name, path = ("rfvd" if is_video else "rfid"), text
    if name not in METRICS:
        raise InputError(f"--features takes NAME=FILE with NAME {', '.join(METRICS)}, got {text!r}")
    return name, Extractor.open(path)
