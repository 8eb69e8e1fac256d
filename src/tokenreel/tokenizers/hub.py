"""Files of a model: in a folder, among those that ship with the package, or fetched from the Hugging Face hub."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from tokenreel.errors import InputError

__all__ = ["DEFAULT", "GENERATOR", "is_hub_id", "pretrained_folder", "pretrained_names", "resolved", "uploaded"]

DEFAULT = "video-fsq"
"""What commands use where no tokenizer is named."""

GENERATOR = "world-maskgit"
"""What ``generate`` uses where no generator is named."""

_SHIPPED = Path(__file__).parents[1] / "pretrained"
_SHIPPED_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(text: str) -> bool:
    """Whether this looks like ``owner/name``.

    >>> is_hub_id("someone/video-tokens"), is_hub_id("./folder"), is_hub_id("a/b/c")
    (True, False, False)
    """
    return _HUB_ID.fullmatch(text) is not None


def pretrained_names(kind: str = "tokenizer") -> list[str]:
    """The models of a kind that ship with the package."""
    return sorted(
        config.parent.name for config in _SHIPPED.glob("*/config.json") if kind in json.loads(config.read_text())
    )


def pretrained_folder(name: str) -> Path | None:
    """Where a model that ships lies; None if none is called so."""
    folder = _SHIPPED / name
    return folder if _SHIPPED_NAME.fullmatch(name) and (folder / "config.json").is_file() else None


def resolved(source: str, name: str, **download: Any) -> Path:
    """The local path of one file of a model: of a folder, of a name that ships, or of a hub id.

    Raises:
        InputError: neither a folder with that file, nor a name that ships, nor a repository that can be reached;
        nothing else is tried.
    """
    path = Path(source) / name
    if path.is_file():
        return path
    shipped = pretrained_folder(source)
    if shipped is not None and not Path(source).exists():
        return shipped / name
    # `runs/typo` beside a folder `runs` is a path that was meant, and no reason to ask a network.
    if os.path.exists(source) or not is_hub_id(source) or Path(source).parent.is_dir():
        raise InputError(f"there is no file {path}; name a folder that holds a model, or owner/name on the hub")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(hf_hub_download(source, name, **download))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{source!r} is no folder here, and {name} could not be fetched from the hub ({reason})"
        ) from error


def uploaded(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    commit_message: str = "A model of tokenreel",
    create_pr: bool = False,
) -> str:
    """Put the files of a folder into a repository on the hub, made if it is missing; the address of the commit."""
    from huggingface_hub import HfApi

    hub = HfApi(token=token)
    repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
    commit = hub.upload_folder(
        repo_id=repo_id, folder_path=folder, revision=branch, commit_message=commit_message, create_pr=create_pr
    )
    return str(commit.commit_url)
