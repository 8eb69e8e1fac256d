"""Files of a tokenizer: in a folder, or fetched from the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tokenreel.errors import InputError

__all__ = ["is_hub_id", "resolved"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(text: str) -> bool:
    """Whether this looks like ``owner/name``.

    >>> is_hub_id("someone/video-tokens"), is_hub_id("./folder"), is_hub_id("a/b/c")
    (True, False, False)
    """
    return _HUB_ID.fullmatch(text) is not None


def resolved(source: str, name: str, **download: Any) -> Path:
    """The local path of one file of a tokenizer.

    Raises:
        InputError: neither a folder with that file nor a repository that can be reached; nothing else is tried.
    """
    path = Path(source) / name
    if path.is_file():
        return path
    # `runs/typo` beside a folder `runs` is a path that was meant, and no reason to ask a network.
    if os.path.exists(source) or not is_hub_id(source) or Path(source).parent.is_dir():
        raise InputError(f"there is no file {path}; name a folder that holds a tokenizer, or owner/name on the hub")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(hf_hub_download(source, name, **download))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{source!r} is no folder here, and {name} could not be fetched from the hub ({reason})"
        ) from error
