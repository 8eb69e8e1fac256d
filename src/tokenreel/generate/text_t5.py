"""T5 as a text encoder, through transformers: frozen, its states kept on disk.

Letters: B prompts, S text tokens, Dt width of a text state.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenreel.errors import FormatError, InputError, MissingExtraError
from tokenreel.files import whole_file

from .condition import Condition
from .text import checked_prompts

__all__ = ["T5Text"]

_AT_ONCE = 32  # prompts of one length in a pass


class T5Text:
    """The encoder half of a T5 or flan-T5 as a ``TextEncoder`` (arXiv 1910.10683; Imagen, arXiv 2205.11487, sec. 2.1).

    The weights are loaded when they are first needed, by transformers: from a folder, from its cache, or from the hub
    unless that is forbidden. Prompts of different length never share a pass, so there is no padding to see.

    Args:
        source: a folder, or an id on the hub such as ``google/flan-t5-base``.
        cache: folder that keeps the states of every prompt, as safetensors below the fingerprint of the model; None
            keeps none.
        max_tokens: longer prompts are cut there, their end mark kept.
        device: where the encoder runs; states come back there.
        local_files_only: never ask the hub. ``HF_HUB_OFFLINE=1`` forbids it for the whole process.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        cache: str | os.PathLike[str] | None = None,
        max_tokens: int = 128,
        device: str | torch.device = "cpu",
        local_files_only: bool = False,
    ) -> None:
        if max_tokens < 2:
            raise InputError(f"max_tokens must be at least 2 (a token and the end mark), got {max_tokens}")
        self.source, self.max_tokens, self.device = os.fspath(source), max_tokens, torch.device(device)
        self.cache = None if cache is None else Path(cache)
        self.local_files_only = local_files_only
        self._loaded: tuple[Any, Any] | None = None
        self._fingerprint: str | None = None

    @property
    def name(self) -> str:
        """``t5:`` and the source."""
        return f"t5:{self.source}"

    @property
    def dim(self) -> int:
        """Dt."""
        return int(self._models()[1].config.d_model)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the tokenizer, ``max_tokens`` and the encoder's weights as float32."""
        if self._fingerprint is None:
            tokenizer, model = self._models()
            digest = hashlib.sha256(f"t5 {self.max_tokens} ".encode())
            rules = json.loads(tokenizer.backend_tokenizer.to_str())
            rules |= {"truncation": None, "padding": None}  # set by the last call, not part of what it is
            digest.update(json.dumps(rules, sort_keys=True).encode())
            digest.update(model.config.to_json_string().encode())
            for key, tensor in sorted(model.state_dict().items()):
                digest.update(key.encode())
                digest.update(tensor.float().cpu().contiguous().numpy().reshape(-1).view(np.uint8).data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Prompts -> ``Condition``: states from the disk where they are kept, else computed and kept."""
        prompts = checked_prompts(prompts)
        states = {prompt: self._kept(prompt) for prompt in dict.fromkeys(prompts)}
        new = [prompt for prompt, found in states.items() if found is None]
        for prompt, made_SD in self._computed(new):
            self._keep(prompt, made_SD)
            states[prompt] = made_SD
        rows = [state_SD for prompt in prompts if (state_SD := states[prompt]) is not None]
        context_BSD = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
        lengths_B = torch.tensor([len(row) for row in rows], device=self.device)
        return Condition(context_BSD, torch.arange(context_BSD.shape[1], device=self.device) < lengths_B[:, None])

    @torch.no_grad()
    def _computed(self, prompts: list[str]) -> list[tuple[str, Tensor]]:
        """States (S, Dt) of prompts, in float32 under any autocast; those of equal length run together."""
        if not prompts:
            return []
        tokenizer, model = self._models()
        coded = tokenizer(prompts, truncation=True, max_length=self.max_tokens, add_special_tokens=True)["input_ids"]
        order = sorted(range(len(prompts)), key=lambda index: len(coded[index]))
        found = []
        for _, run in groupby(order, key=lambda index: len(coded[index])):
            chosen = list(run)
            for part in (chosen[start : start + _AT_ONCE] for start in range(0, len(chosen), _AT_ONCE)):
                ids_BS = torch.tensor([coded[index] for index in part], device=self.device)
                with torch.autocast(self.device.type, enabled=False):
                    states_BSD = model(input_ids=ids_BS).last_hidden_state.float().cpu()
                found += [(prompts[index], state_SD) for index, state_SD in zip(part, states_BSD)]
        return found

    # The disk.

    def _place(self, prompt: str) -> Path | None:
        if self.cache is None:
            return None
        key = hashlib.sha256(prompt.encode()).hexdigest()
        return self.cache / self.fingerprint[:32] / key[:2] / f"{key}.safetensors"

    def _kept(self, prompt: str) -> Tensor | None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._place(prompt)
        if path is None or not path.is_file():
            return None
        try:
            return load_file(path)["states_SD"]
        except (SafetensorError, KeyError, OSError) as error:
            raise FormatError(f"{path} holds no text states ({error}); delete it, it will be made again") from error

    def _keep(self, prompt: str, states_SD: Tensor) -> None:
        from safetensors.torch import save_file

        path = self._place(prompt)
        if path is not None:
            with whole_file(path) as temporary:
                save_file({"states_SD": states_SD.contiguous()}, temporary, metadata={"prompt": prompt})

    # The model.

    def _models(self) -> tuple[Any, Any]:
        """Tokenizer and encoder, loaded once."""
        if self._loaded is None:
            try:
                from transformers import AutoTokenizer, T5EncoderModel
            except ImportError as error:
                raise MissingExtraError("T5 needs transformers: pip install 'tokenreel[text]'") from error
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.source, local_files_only=self.local_files_only)
                model: Any = T5EncoderModel.from_pretrained(
                    self.source, local_files_only=self.local_files_only, dtype=torch.float32
                )
            except (OSError, ValueError) as error:
                reason = str(error).strip().split("\n")[0]
                raise InputError(
                    f"the text encoder {self.source!r} is no folder with a T5, is not in the cache and could not be "
                    f"fetched ({reason}); download it first, or use the byte-level encoder, which needs no download"
                ) from error
            self._loaded = tokenizer, model.eval().requires_grad_(False).to(self.device)
        return self._loaded
