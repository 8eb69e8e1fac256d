"""MedMNIST v2: which data sets there are, and where their npz files come from (Yang et al. 2023, arXiv 2110.14795).

Addresses, checksums, classes and counts are those that version 3.0.2 of the authors' package states for size 28. The
package itself is not needed. ``npz`` reads the files, ``labelled_medmnist`` gives them classes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

from tokenreel.errors import InputError
from tokenreel.files import whole_file

__all__ = ["MEDMNIST", "MULTI_LABEL", "Fetch", "MedMnist", "Task", "fetch", "known_as", "medmnist_file"]

Task = Literal["binary-class", "multi-class", "ordinal-regression", "multi-label, binary-class"]
MULTI_LABEL: Task = "multi-label, binary-class"
Fetch = Callable[[str, Path], None]

_RECORD = "https://zenodo.org/records/10519652/files"
_TIMEOUT_SECONDS = 60.0
_BLOCK_BYTES = 1 << 20
_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class MedMnist:
    """One data set.

    Attributes:
        md5: of the official file of size 28, in hexadecimal.
        task: in MedMNIST's words; of ``multi-label, binary-class`` each name of ``classes`` is present or absent.
        num_channels: 1 grey or 3 RGB.
        classes: their names; the number of a class is its place.
        counts: examples of train, val and test.
        licence: of the images.
    """

    name: str
    md5: str
    task: Task
    classes: tuple[str, ...]
    counts: tuple[int, int, int]
    num_channels: Literal[1, 3] = 1
    licence: str = "CC BY 4.0"

    @property
    def is_volume(self) -> bool:
        """Whether its examples are volumes of 28 slices."""
        return self.name.endswith("3d")

    @property
    def file_name(self) -> str:
        """Of the official file of size 28."""
        return f"{self.name}.npz"

    @property
    def address(self) -> str:
        """Where the official file is."""
        return f"{_RECORD}/{self.file_name}?download=1"


MEDMNIST: dict[str, MedMnist] = {
    entry.name: entry
    for entry in (
        MedMnist(
            name="pathmnist", md5="a8b06965200029087d5bd730944a56c1", task="multi-class", num_channels=3,
            classes=("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
                     "cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
            counts=(89996, 10004, 7180),
        ),
        MedMnist(
            name="chestmnist", md5="02c8a6516a18b556561a56cbdd36c4a8", task="multi-label, binary-class",
            classes=("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
                     "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia"),
            counts=(78468, 11219, 22433),
        ),
        MedMnist(
            name="dermamnist", md5="0744692d530f8e62ec473284d019b0c7", task="multi-class", num_channels=3,
            classes=("actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
                     "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
                     "vascular lesions"),
            counts=(7007, 1003, 2005), licence="CC BY-NC 4.0",
        ),
        MedMnist(
            name="octmnist", md5="c68d92d5b585d8d81f7112f81e2d0842", task="multi-class",
            classes=("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
            counts=(97477, 10832, 1000),
        ),
        MedMnist(
            name="pneumoniamnist", md5="28209eda62fecd6e6a2d98b1501bb15f", task="binary-class",
            classes=("normal", "pneumonia"), counts=(4708, 524, 624),
        ),
        MedMnist(
            name="retinamnist", md5="bd4c0672f1bba3e3a89f0e4e876791e4", task="ordinal-regression", num_channels=3,
            classes=("0", "1", "2", "3", "4"), counts=(1080, 120, 400),
        ),
        MedMnist(
            name="breastmnist", md5="750601b1f35ba3300ea97c75c52ff8f6", task="binary-class",
            classes=("malignant", "normal, benign"), counts=(546, 78, 156),
        ),
        MedMnist(
            name="bloodmnist", md5="7053d0359d879ad8a5505303e11de1dc", task="multi-class", num_channels=3,
            classes=("basophil", "eosinophil", "erythroblast",
                     "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)", "lymphocyte", "monocyte",
                     "neutrophil", "platelet"),
            counts=(11959, 1712, 3421),
        ),
        MedMnist(
            name="tissuemnist", md5="ebe78ee8b05294063de985d821c1c34b", task="multi-class",
            classes=("Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule", "Glomerular endothelial cells",
                     "Interstitial endothelial cells", "Leukocytes", "Podocytes", "Proximal Tubule Segments",
                     "Thick Ascending Limb"),
            counts=(165466, 23640, 47280),
        ),
        MedMnist(
            name="organamnist", md5="68e3f8846a6bd62f0c9bf841c0d9eacc", task="multi-class", classes=_ORGANS,
            counts=(34561, 6491, 17778),
        ),
        MedMnist(
            name="organcmnist", md5="b9ceb9546e10131b32923c5bbeaea2b1", task="multi-class", classes=_ORGANS,
            counts=(12975, 2392, 8216),
        ),
        MedMnist(
            name="organsmnist", md5="9ab87b696fb54e2a387ebe992d6ed5f1", task="multi-class", classes=_ORGANS,
            counts=(13932, 2452, 8827),
        ),
        MedMnist(
            name="organmnist3d", md5="a0c5a1ff56af4f155c46d46fbb45a2fe", task="multi-class",
            classes=("liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder", "heart",
                     "lung-right", "lung-left", "spleen", "pancreas"),
            counts=(971, 161, 610),
        ),
        MedMnist(
            name="nodulemnist3d", md5="8755a7e9e05a4d9ce80a24c3e7a256f3", task="binary-class",
            classes=("benign", "malignant"), counts=(1158, 165, 310),
        ),
        MedMnist(
            name="adrenalmnist3d", md5="bbd3c5a5576322bc4cdfea780653b1ce", task="binary-class",
            classes=("normal", "hyperplasia"), counts=(1188, 98, 298),
        ),
        MedMnist(
            name="fracturemnist3d", md5="6aa7b0143a6b42da40027a9dda61302f", task="multi-class",
            classes=("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture"),
            counts=(1027, 103, 240),
        ),
        MedMnist(
            name="vesselmnist3d", md5="b41fd4f7e7e2feedddb201585ecafa1b", task="binary-class",
            classes=("vessel", "aneurysm"), counts=(1335, 191, 382),
        ),
        MedMnist(
            name="synapsemnist3d", md5="1235b78a3cd6280881dd7850a78eadb6", task="binary-class",
            classes=("inhibitory synapse", "excitatory synapse"), counts=(1230, 177, 352),
        ),
    )
}  # fmt: skip
"""Name -> data set."""


def known_as(path: str | os.PathLike[str]) -> MedMnist | None:
    """The data set that a file holds by its name (``organmnist3d.npz``, ``organmnist3d_64.npz``), or None."""
    stem = Path(path).stem.lower()
    name, _, size = stem.rpartition("_")
    return MEDMNIST.get(name if size.isdigit() else stem)


def fetch(address: str, path: Path) -> None:
    """Write what is at an address to a file, block by block."""
    with urlopen(address, timeout=_TIMEOUT_SECONDS) as response, path.open("wb") as file:
        while block := response.read(_BLOCK_BYTES):
            file.write(block)


def medmnist_file(
    source: str | os.PathLike[str], *, folder: str | os.PathLike[str] | None = None, fetch: Fetch = fetch
) -> Path:
    """The npz file of a data set: a file that is here wins, else the official one is fetched once.

    A file that the caller names is taken as it is; a fetched one must have the official MD5.

    Args:
        source: an npz file, a folder that holds one of a name in ``MEDMNIST``, or such a name.
        folder: where fetched files are kept; ``~/.cache/tokenreel/medmnist`` (or below ``XDG_CACHE_HOME``) by default.
        fetch: writes what is at an address to a file.

    Raises:
        InputError: nothing of that name, no connection, or a file that is not the official one.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        return _within(path)
    entry = MEDMNIST.get(str(source).lower())
    if entry is None:
        raise InputError(f"{source} is neither a file nor a MedMNIST data set; those are {', '.join(MEDMNIST)}")
    kept = (Path(folder) if folder is not None else _cache()) / entry.file_name
    if not kept.is_file():
        _fetch_whole(entry, kept, fetch)
    return kept


def _within(folder: Path) -> Path:
    found = sorted(path for path in folder.glob("*.npz") if known_as(path) is not None)
    if len(found) != 1:
        there = f"{len(found)} such files ({', '.join(path.name for path in found)})" if found else "no such file"
        raise InputError(f"{folder} should hold one npz file of MedMNIST, such as organmnist3d.npz; it has {there}")
    return found[0]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenreel" / "medmnist"


def _fetch_whole(entry: MedMnist, path: Path, fetch: Fetch) -> None:
    with whole_file(path) as part:
        try:
            fetch(entry.address, part)
        except (OSError, HTTPException) as error:  # no connection, an address that answers no, or one that breaks off
            raise InputError(
                f"{entry.file_name} is not at {path} and cannot be fetched from {entry.address} ({error}); "
                "fetch it where there is a connection and give its path"
            ) from error
        found = _md5(part)
        if found != entry.md5:
            raise InputError(
                f"what came from {entry.address} has MD5 {found}, the official file has {entry.md5}; try again, "
                "or give the path of a file that you trust"
            )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
