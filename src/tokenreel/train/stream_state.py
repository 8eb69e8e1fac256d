"""What every stream of batches asks of a saved state before it goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenreel.errors import MismatchError

__all__ = ["check_stream_state"]


def check_stream_state(state: Mapping[str, Any], *, version: int, identity: Mapping[str, Any]) -> None:
    """MismatchError unless the state has this version and was saved by a stream of the same batches.

    Args:
        state: as ``state_dict`` gave it.
        version: of the state's layout.
        identity: what decides the batches: sources, config, seed, ranks; each must be equal.
    """
    if state.get("version") != version:
        raise MismatchError(f"the state of the batches has version {state.get('version')!r}, expected {version}")
    for name, ours in identity.items():
        if state.get(name) != ours:
            raise MismatchError(
                f"the state of the batches was saved with {name}={state.get(name)!r}, this run has {ours!r}: the "
                "batches would be others; use the same data and options, or start without the state"
            )
