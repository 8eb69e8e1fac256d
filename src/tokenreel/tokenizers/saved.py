"""What all models that are kept in a folder share: configuration, precision, fingerprint, saving and loading."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn

from tokenreel.errors import FormatError, InputError
from tokenreel.files import whole_file

from .configs import chosen_values, from_values, to_values

__all__ = ["CONFIG_NAME", "KINDS", "WEIGHTS_NAME", "Precision", "SavedModel"]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
KINDS = ("tokenizer", "classifier", "generator")
Precision = Literal["fp32", "bf16"]

_CARD = """---
library_name: tokenreel
tags: [video, image, {kind}, {name}]
---
# A tokenreel {kind}: {name}

{summary} {papers}.

| | |
|---|---|
{table}

Safe to load: safetensors and JSON only.
"""


class SavedModel(nn.Module):
    """Base of every model that is a folder of ``model.safetensors``, ``config.json`` and ``README.md``.

    ``config.json`` holds the fields of the configuration, the family under the name of its kind
    (``"tokenizer": "titok"``), and the fingerprint of the weights beside it. Equal configuration and weights are the
    same model, so a fingerprint names it wherever it is kept.

    Attributes:
        kind: one of ``KINDS``.
        name: the family.
        config_type: the frozen dataclass that ``config`` is of.
        sizes: named configurations; the first is the default.
        summary: one sentence for the card and for listings.
        papers: arXiv numbers.
        config: the frozen configuration; config and weights are the model.
        precision: what ``running`` computes in; ``bf16`` is autocast.
        source: the folder or hub id it was loaded from; None if it never was.
    """

    kind: ClassVar[str]
    name: ClassVar[str]
    config_type: ClassVar[type[Any]]
    sizes: ClassVar[Mapping[str, Any]]
    summary: ClassVar[str]
    papers: ClassVar[tuple[str, ...]]

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.precision: Precision = "fp32"
        self.source: str | None = None
        self._hashed: tuple[tuple[int, ...], str] | None = None

    def card(self, fingerprint: str) -> str:
        """The text of ``README.md`` beside the weights; a kind adds its own figures."""
        papers = ", ".join(f"[arXiv {paper}](https://arxiv.org/abs/{paper})" for paper in self.papers)
        rows = {"parameters": f"{self.num_parameters:,}", **self.card_rows(), "fingerprint": f"`{fingerprint}`"}
        table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
        return _CARD.format(kind=self.kind, name=self.name, summary=self.summary, papers=papers, table=table)

    def card_rows(self) -> Mapping[str, str]:
        """What the table of the card holds beside parameters and fingerprint."""
        return {}

    @property
    def device(self) -> torch.device:
        """Where the weights are; what is given is moved there, results come back to the CPU."""
        return next(self.parameters()).device

    @property
    def num_parameters(self) -> int:
        """Of all weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over name, configuration and weights as float32; half-precision files are hashed as they load.

        Kept until a weight changes in place; assigning ``.data`` goes unseen.
        """
        tensors = self.state_dict(keep_vars=True)
        versions = tuple(
            part for t in tensors.values() for part in (t.data_ptr(), 0 if t.is_inference() else t._version)
        )
        if self._hashed is None or self._hashed[0] != versions:
            self._hashed = (versions, _hash(self.kind, self.name, chosen_values(self.config), tensors))
        return self._hashed[1]

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As every module; the fingerprint is computed anew."""
        self._hashed = None
        return super().load_state_dict(*args, **kwargs)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Eval mode, no gradients, the chosen precision; modes are put back after."""
        if self.precision not in get_args(Precision):
            raise InputError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}")
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            with torch.inference_mode(), self._autocast():
                yield
        finally:
            for module in training:
                module.training = True

    def _autocast(self) -> Any:
        """What ``precision`` asks for; in fp32 whatever the caller has set up around the call."""
        if self.precision == "fp32":
            return torch.autocast(self.device.type, enabled=torch.is_autocast_enabled(self.device.type))
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    # At rest.

    @classmethod
    def untrained(cls, size: str | Any = "", *, seed: int = 0) -> Self:
        """With random weights of this seed: a named size of ``sizes`` (the first by default), or a configuration."""
        if not 0 <= seed < 1 << 63:
            raise InputError(f"seed must lie in [0, 2^63), got {seed}")
        config = size
        if isinstance(size, str):
            if size and size not in cls.sizes:
                raise InputError(f"{cls.name} has no size {size!r}; its sizes are {', '.join(cls.sizes)}")
            if not cls.sizes:
                raise InputError(f"{cls.name} has no named sizes; give its configuration, a {cls.config_type.__name__}")
            config = cls.sizes[size or next(iter(cls.sizes))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config).eval()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
    ) -> Self:
        """From a folder, or from ``owner/name`` on the Hugging Face hub: ``config.json`` and ``model.safetensors``.

        Raises:
            InputError: there is no such folder or repository. FormatError: its files are damaged, do not fit
            together, or are of another family.
        """
        from .hub import resolved

        source = os.fspath(pretrained_model_name_or_path)
        if precision not in get_args(Precision):
            raise InputError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
        download = {"revision": revision, "token": token, "cache_dir": cache_dir, "force_download": force_download}
        config, weights = (
            resolved(source, name, local_files_only=local_files_only, **download)
            for name in (CONFIG_NAME, WEIGHTS_NAME)
        )
        model = cls._from_files(config, weights).to(_device(device))
        model.source, model.precision = source, precision
        return model

    @classmethod
    def _from_files(cls, config: Path, weights: Path) -> Self:
        """The module, in eval mode; its fingerprint is compared with the one in ``config.json``."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        values, fingerprint = cls._described(config)
        with torch.device("meta"):
            try:
                model = cls(from_values(cls.config_type, values)).eval()
            except (InputError, RuntimeError, TypeError, AttributeError, ZeroDivisionError) as error:
                raise FormatError(f"{config} does not describe a {cls.kind}: {error}") from error
        try:
            tensors = load_file(weights)
        except (SafetensorError, OSError) as error:
            raise FormatError(f"{weights} is not a readable safetensors file ({error}); copy it again") from error
        _fill(model, tensors, weights)
        if fingerprint is not None and model.fingerprint != fingerprint:
            raise FormatError(f"{weights} does not belong to {config.name} beside it: their fingerprints differ")
        return model

    @classmethod
    def _described(cls, config: Path) -> tuple[dict[str, Any], str | None]:
        """The fields and the fingerprint in a ``config.json`` of this family."""
        try:
            values = dict(json.loads(config.read_text()))
        except (ValueError, TypeError) as error:
            raise FormatError(f"{config} does not describe a {cls.kind} of this version ({error})") from error
        others = [kind for kind in KINDS if kind in values and kind != cls.kind]
        if cls.kind not in values:
            found = f"a {others[0]} of the family {values[others[0]]!r}" if others else "no model of this version"
            raise FormatError(f"{config} describes {found}, not a {cls.kind}; name the folder of a {cls.kind}")
        family, fingerprint = values.pop(cls.kind), values.pop("fingerprint", None)
        if family != cls.name:
            raise FormatError(f"{config} describes a {cls.kind} of the family {family!r}, not {cls.name!r}")
        return values, fingerprint

    def is_kept_whole(self, name: str) -> bool:
        """Whether this weight stays float32 in half-precision files: few weights on which much hangs."""
        return False

    @torch.no_grad()
    def round_to_half(self) -> None:
        """Weights become the nearest that a half-precision file holds: what ``save_pretrained(half=True)`` keeps."""
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point() and not self.is_kept_whole(name):
                tensor.copy_(tensor.half())

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *, half: bool = False, card: str | None = None
    ) -> Path:
        """Write ``model.safetensors``, ``README.md`` (the model card) and ``config.json`` into a folder.

        Args:
            save_directory: made if it is missing; files of these names are replaced, others stay.
            half: weights as float16, but those that ``is_kept_whole`` names: about half the bytes, and another
                fingerprint, since weights are rounded.
            card: text of the model card; by default one that states sizes and how to load.
        """
        from safetensors.torch import save_file

        folder = Path(save_directory)
        tensors = {
            name: _stored(tensor, half and not self.is_kept_whole(name)) for name, tensor in self.state_dict().items()
        }
        loaded = {name: _loaded(tensor) for name, tensor in tensors.items()}
        values = to_values(self.config)
        fingerprint = _hash(self.kind, self.name, chosen_values(self.config), loaded)
        about = {self.kind: self.name, **values, "fingerprint": fingerprint}
        with whole_file(folder / WEIGHTS_NAME) as path:
            save_file(tensors, path, metadata={"format": "pt"})
        with whole_file(folder / "README.md") as path:
            path.write_text(self.card(fingerprint) if card is None else card)
        with whole_file(folder / CONFIG_NAME) as path:
            path.write_text(json.dumps(about, indent=2) + "\n")
        return folder

    def push_to_hub(self, repo_id: str, *, half: bool = False, card: str | None = None, **upload: Any) -> str:
        """Write what ``save_pretrained`` writes into a repository on the Hugging Face hub, made if it is missing.

        Args:
            repo_id: ``owner/name``.
            half, card: as in ``save_pretrained``.
            upload: ``private``, ``token``, ``branch``, ``commit_message``, ``create_pr``.

        Returns the address of the commit.
        """
        from .hub import uploaded

        with TemporaryDirectory() as folder:
            return uploaded(self.save_pretrained(folder, half=half, card=card), repo_id, **upload)


def _device(device: str | torch.device) -> torch.device:
    """``auto`` is CUDA where there is one. InputError for a device that torch does not know or does not have."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"the device {str(device)!r} is not there ({str(error).splitlines()[0]}); try cpu") from error
    return torch.device(device)


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.is_floating_point() else tensor


def _loaded(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], weights: Path) -> None:
    """Put weights into a module made on the meta device; FormatError if a name or shape differs."""
    wanted = model.state_dict()
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or unknown:
        raise FormatError(f"{weights} lacks {missing[:3] or 'nothing'}, and holds unknown {unknown[:3] or 'nothing'}")
    for name, tensor in wanted.items():
        if tensors[name].is_floating_point() != tensor.is_floating_point():
            raise FormatError(f"{weights}: {name} must be like {tensor.dtype}, found {tensors[name].dtype}")
        if tensors[name].shape != tensor.shape:
            raise FormatError(
                f"{weights}: {name} must have shape {tuple(tensor.shape)}, found {tuple(tensors[name].shape)}"
            )
    model.load_state_dict({name: _loaded(tensor) for name, tensor in tensors.items()}, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def _hash(kind: str, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Independent of the order, device and storage type of the weights."""
    digest = hashlib.sha256(json.dumps({kind: name, **config}, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu()
        wide = tensor.float() if tensor.is_floating_point() else tensor.long()
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(wide.contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
