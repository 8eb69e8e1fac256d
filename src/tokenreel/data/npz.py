"""Arrays in an ``.npz`` file in MedMNIST's layout: ``train_images``, ``train_labels``, ``val_images`` ...

Images are (N, H, W) grey, (N, H, W, 3) RGB, (N, D, H, W) grey volumes or (N, D, H, W, 3); a last axis of 1 or 3 is
taken for channels. Labels are (N,) or (N, 1) class numbers, or (N, K) marks of K attributes, then in
``meta["labels"]``. An uncompressed file is mapped, not read.
"""

from __future__ import annotations

import os
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import FormatError, InputError

from .collection import Collection
from .example import Example
from .facts import split_name
from .payload import ArrayPayload, Pixels, volume_of

__all__ = ["NpzCollection"]


class NpzCollection(Collection):
    """One split of an npz file; ``example.array()`` is uint8 (T, H, W, C), a 2-D image is T = 1.

    Args:
        path: the file.
        split: ``train``, ``val``, ``test`` ...; must be said where there are several.

    Raises:
        InputError: no such file or split, other keys, other types, images and labels that do not agree.
    """

    def __init__(self, path: str | os.PathLike[str], *, split: str | None = None, group: str | None = None) -> None:
        path = Path(path)
        keys = _keys(path)
        splits = [name.removesuffix("_images") for name in keys if name.endswith("_images")]
        if not splits:
            raise InputError(
                f"{path} is not in MedMNIST's layout: it needs arrays such as train_images and train_labels, "
                f"and has {', '.join(keys) or 'none'}"
            )
        self.path, self.split = path, _chosen(splits, split, path)
        super().__init__(f"{path} ({self.split})", group=group)
        self._images: npt.NDArray[Any] | None = None
        self._read_images()  # now, so that forked workers share the memory
        self._labels = self._read_labels(keys)

    def __len__(self) -> int:
        return len(self._read_images())

    def key(self, index: int) -> str:
        """``train/17``."""
        return f"{self.split}/{index}"

    def _example(self, index: int) -> Example:
        name = f"{self.path}:{self.key(index)}"
        payload = ArrayPayload(partial(self._pixels, index), name)
        return Example(key=self.key(index), source=name, payload=payload, **self._facts(index))

    def _facts(self, index: int) -> dict[str, Any]:
        if self._labels is None:
            return {}
        row = self._labels[index].tolist()
        return {"label": row[0]} if len(row) == 1 else {"meta": {"labels": row}}

    def _pixels(self, index: int) -> Pixels:
        return volume_of(np.asarray(self._read_images()[index]), f"{self.path}:{self.key(index)}")

    def _read_images(self) -> npt.NDArray[Any]:
        if self._images is None:
            name = f"{self.split}_images"
            images = _array(self.path, name)
            if images.dtype != np.uint8 or images.ndim not in (3, 4, 5) or not images.size:
                raise InputError(
                    f"{self.path}: {name} must be uint8 (N, H, W), (N, D, H, W) or with channels last, "
                    f"got {images.dtype} {images.shape}"
                )
            volume_of(np.asarray(images[0]), f"{self.path}:{name}")
            self._images = images
        return self._images

    def _read_labels(self, keys: list[str]) -> npt.NDArray[np.int64] | None:
        name = f"{self.split}_labels"
        if name not in keys:
            return None
        labels = _array(self.path, name)
        if labels.dtype.kind not in "uib" or labels.ndim not in (1, 2) or len(labels) != len(self):
            raise InputError(
                f"{self.path}: {name} must be whole numbers (N,) or (N, K) for {len(self)} images, "
                f"got {labels.dtype} {labels.shape}"
            )
        return labels.astype(np.int64).reshape(len(labels), -1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_images": None}


def _keys(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the name") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path} is not an npz file, or it is damaged ({error})") from error


def _chosen(splits: list[str], split: str | None, path: Path) -> str:
    if split is None:
        if len(splits) > 1:
            raise InputError(f"{path} has the splits {', '.join(splits)}: choose one with split=")
        return splits[0]
    if split in splits:
        return split
    for name in splits:
        if split_name(split) is not None and split_name(name) == split_name(split):
            return name
    raise InputError(f"{path} has no split {split!r}; it has {', '.join(splits)}")


def _array(path: Path, name: str) -> npt.NDArray[Any]:
    """One array of the file: mapped where it is stored uncompressed, else read."""
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as file:
                if info.compress_type == zipfile.ZIP_STORED:
                    return _mapped(path, info, file)
                array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
                return array
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path}: the array {name} cannot be read ({error})") from error


def _mapped(path: Path, info: zipfile.ZipInfo, file: Any) -> npt.NDArray[Any]:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    with path.open("rb") as archive:  # the local header repeats the name; its extra field may differ in length
        archive.seek(info.header_offset + 26)
        lengths = np.frombuffer(archive.read(4), "<u2")
    start = info.header_offset + 30 + int(lengths.sum()) + file.tell()
    return np.memmap(path, dtype, "r", start, shape, "F" if is_fortran else "C")
