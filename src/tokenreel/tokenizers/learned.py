"""What all learned tokenizers share: checks before work, precision, fingerprint, saving and loading.

Letters: C channels (3), T frames, H W pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.files import whole_file
from tokenreel.quantize import Quantizer
from tokenreel.types import Layout, PatchSize, Tokens

from .base import Reconstruction, StreamDecoder, StreamEncoder, check_reading
from .card import model_card
from .configs import from_values, to_values

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "LearnedTokenizer", "Precision"]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
Precision = Literal["fp32", "bf16"]

_MOST_PIXELS = 1 << 27  # of a frame; 1-D tokens do not bound it by their number
_MARGIN = 1e-3  # pixels may pass [-1, 1] by so much; resizing filters do


class LearnedTokenizer(nn.Module, ModelHubMixin):
    """Base of the tokenizers with weights: a torch module that satisfies the ``Tokenizer`` protocol.

    ``encode`` and ``decode`` run in eval mode without gradients, whatever mode the module is in, in float32 unless
    ``precision`` says otherwise. ``forward`` is for training and follows the mode, autocast and device it is run in.

    Attributes:
        config: the frozen configuration; config and weights are the tokenizer.
        precision: ``bf16`` runs the transformers in bfloat16 (autocast); latents and quantizers stay in float32.
        encoder_parts: names of the modules up to the quantizer; what a decoder-only stage freezes.
        source: where it was loaded from, kept in tokens so that they find it again; None if it never was.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[Any]]
    sizes: ClassVar[Mapping[str, Any]]
    summary: ClassVar[str]
    papers: ClassVar[tuple[str, ...]]
    encoder_parts: ClassVar[tuple[str, ...]]
    quantizer: Quantizer
    pixels: ClassVar[Literal["float", "uint8"]] = "float"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.precision: Precision = "fp32"
        self.source: str | None = None
        self._hashed: tuple[tuple[int, ...], str] | None = None

    # The parts that a family fills in.

    def forward(self, *args: Any, **kwargs: Any) -> Reconstruction:
        """Videos -> ``Reconstruction``, for training."""
        raise NotImplementedError

    @property
    def quantizer_size(self) -> int:
        """K of the family's quantizer."""
        raise NotImplementedError

    @property
    def layout(self) -> Layout:
        """Of its tokens."""
        raise NotImplementedError

    @property
    def patch_size(self) -> PatchSize:
        """(pt, ph, pw)."""
        size: PatchSize = self.config.patch_size
        return size

    @property
    def first_frames(self) -> int:
        """Frames that the first step of the grid stands for."""
        return self.patch_size[0]

    @property
    def segment_steps(self) -> int:
        """Grid steps that are coded as one piece."""
        return 1

    @property
    def last_weight(self) -> Tensor:
        """Of the map to pixels; an adaptive adversarial weight is measured there."""
        raise NotImplementedError

    def num_tokens_of(self, size: tuple[int, int, int]) -> int:
        """How many ids a video of (T, H, W) becomes."""
        raise NotImplementedError

    def encode(self, videos: Sequence[Any]) -> list[Tokens]:
        """Videos (3, T, H, W) in [-1, 1] or uint8, sizes may differ -> one Tokens a video, in order."""
        raise NotImplementedError

    def decode(self, tokens: Sequence[Tokens]) -> list[Any]:
        """Tokens -> videos (3, T, H, W) float32 in [-1, 1] on the CPU, in order, of the sizes that were encoded."""
        raise NotImplementedError

    def encoder(self) -> StreamEncoder:
        """A stream over one clip."""
        raise NotImplementedError

    def decoder(self) -> StreamDecoder:
        """A stream over one clip."""
        raise NotImplementedError

    # What follows from them.

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.quantizer_size

    @property
    def device(self) -> torch.device:
        """Where the weights are; videos are moved there, results come back to the CPU."""
        return next(self.parameters()).device

    @property
    def num_parameters(self) -> int:
        """Of all weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def reference(self) -> dict[str, Any]:
        """What token files carry so that this tokenizer is found again."""
        source = {} if self.source is None else {"tokenizer_source": self.source}
        return {"tokenizer_config": to_values(self.config), **source}

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
            self._hashed = (versions, _hash(self.name, to_values(self.config), tensors))
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

    def checked_videos(self, videos: Sequence[Any]) -> list[Tensor]:
        """Videos as float32 (3, T, H, W) on this device; InputError for anything else, before any work is done."""
        shape = getattr(videos, "shape", ())
        if len(shape) == 4:
            raise InputError(f"encode takes a list of videos (C, T, H, W), got one of shape {tuple(shape)}")
        return [_checked(video, index).to(self.device) for index, video in enumerate(videos)]

    def check_tokens(self, tokens: Sequence[Tokens]) -> None:
        """MismatchError unless all of these can be decoded here."""
        if isinstance(tokens, Tokens):
            raise InputError("decode takes a list of Tokens, got one; write decode([tokens])")
        for item in tokens:
            check_reading(self, item, self.layout)
            if item.size[1] * item.size[2] > _MOST_PIXELS:
                raise MismatchError(f"tokens of frames of {item.size[2]}x{item.size[1]} pixels; is their file damaged?")

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
            config = cls.sizes[size or next(iter(cls.sizes))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config).eval()

    @classmethod
    def from_pretrained(  # type: ignore[override]
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

        try:
            values = json.loads(config.read_text())
            family, fingerprint = values.pop("tokenizer"), values.pop("fingerprint", None)
        except (ValueError, KeyError, AttributeError) as error:
            raise FormatError(f"{config} does not describe a tokenizer of this version ({error})") from error
        if family != cls.name:
            raise FormatError(f"{config} describes a tokenizer of the family {family!r}, not {cls.name!r}")
        with torch.device("meta"):
            try:
                model = cls(from_values(cls.config_type, values)).eval()
            except (InputError, RuntimeError, TypeError, AttributeError, ZeroDivisionError) as error:
                raise FormatError(f"{config} does not describe a tokenizer: {error}") from error
        try:
            tensors = load_file(weights)
        except (SafetensorError, OSError) as error:
            raise FormatError(f"{weights} is not a readable safetensors file ({error}); copy it again") from error
        _fill(model, tensors, weights)
        if fingerprint is not None and model.fingerprint != fingerprint:
            raise FormatError(f"{weights} does not belong to {config.name} beside it: their fingerprints differ")
        return model

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[str], *, half: bool = False, card: str | None = None, **ignored: Any
    ) -> Path:
        """Write ``model.safetensors``, ``README.md`` (the model card) and ``config.json`` into a folder.

        Args:
            save_directory: made if it is missing; files of these names are replaced, others stay.
            half: weights as float16: half the bytes, and another fingerprint, since weights are rounded.
            card: text of the model card; by default one that states sizes and how to load.
            ignored: what ``push_to_hub`` passes on and needs not be told here.
        """
        from safetensors.torch import save_file

        folder = Path(save_directory)
        tensors = {name: _stored(tensor, half) for name, tensor in self.state_dict().items()}
        loaded = {name: _loaded(tensor) for name, tensor in tensors.items()}
        values = to_values(self.config)
        fingerprint = _hash(self.name, values, loaded)
        about = {"tokenizer": self.name, **values, "fingerprint": fingerprint}
        with whole_file(folder / WEIGHTS_NAME) as path:
            save_file(tensors, path, metadata={"format": "pt"})
        with whole_file(folder / "README.md") as path:
            path.write_text(model_card(self, fingerprint) if card is None else card)
        with whole_file(folder / CONFIG_NAME) as path:
            path.write_text(json.dumps(about, indent=2) + "\n")
        return folder


def _checked(video: Any, index: int) -> Tensor:
    shape = tuple(getattr(video, "shape", ()))
    which = f"video {index}"
    if len(shape) != 4 or shape[0] != 3 or 0 in shape:
        raise InputError(f"{which} must be (3, T, H, W) with at least one frame and pixel, got shape {shape}")
    if isinstance(video, np.ndarray):
        if video.dtype.kind not in "fiub":
            raise InputError(f"{which} must be float in [-1, 1] or uint8, got {video.dtype}")
        video = torch.from_numpy(np.ascontiguousarray(video, dtype=video.dtype.newbyteorder("=")))
    tensor: Tensor = video
    if tensor.dtype == torch.uint8:
        return tensor.float().div_(127.5).sub_(1)
    if not tensor.is_floating_point():
        raise InputError(f"{which} must be float in [-1, 1] or uint8, got {tensor.dtype}")
    lowest, highest = (float(end) for end in tensor.detach().aminmax())
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise InputError(f"{which} holds pixels that are not finite (NaN or infinity)")
    if max(-lowest, highest) > 1 + _MARGIN:
        raise InputError(
            f"{which} must lie in [-1, 1], found {lowest:g} to {highest:g}; tokenreel.to_video converts uint8 frames"
        )
    return tensor.float()


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


def _hash(name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Independent of the order, device and storage type of the weights."""
    digest = hashlib.sha256(json.dumps({"tokenizer": name, **config}, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu()
        wide = tensor.float() if tensor.is_floating_point() else tensor.long()
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(wide.contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
