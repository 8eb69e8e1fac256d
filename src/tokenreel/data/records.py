"""Token shards as a collection: each record is an example that holds tokens."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

from tokenreel.tokens.shards import ShardReader
from tokenreel.types import Tokens

from .collection import Collection, capture
from .example import Example, Label
from .folder import token_facts
from .payload import TokensPayload

__all__ = ["ShardCollection"]


class ShardCollection(Collection):
    """The records of a folder of shards or of one shard, in the order in which they were written.

    ``reader`` is the ``ShardReader`` behind it, for whole columns and batches of ids.
    """

    def __init__(self, path: str | os.PathLike[str], *, group: str | None = None) -> None:
        super().__init__(str(path), group=group)
        self.reader = ShardReader(path)

    def __len__(self) -> int:
        return len(self.reader)

    def key(self, index: int) -> str:
        """The number of the record."""
        return str(index)

    @property
    def labels(self) -> list[Label | None]:
        """The label of every record, from its columns alone."""
        table = self.reader.columns("label", "label_id")
        names, numbers = table["label"].to_pylist(), table["label_id"].to_pylist()
        return [name if name is not None else number for name, number in zip(names, numbers)]

    @property
    def groups(self) -> list[str | None]:
        """The group of every record, from its metadata alone; by pattern from the name of what was encoded."""
        table = self.reader.columns("meta", "source")
        found = []
        for at, (text, source) in enumerate(zip(table["meta"].to_pylist(), table["source"].to_pylist())):
            group = json.loads(text).get("group") if text else None
            if group is None and self._group is not None:
                group = capture(self._group, source or self.key(at))
            found.append(None if group is None else str(group))
        return found

    def _named(self, index: int) -> str:
        return str(self.reader[index].meta.get("source", self.key(index)))

    def _example(self, index: int) -> Example:
        tokens = self.reader[index]
        name = f"{self.name}:{index}"
        payload = TokensPayload(partial(_same, tokens), name)
        return Example(key=self.key(index), source=name, payload=payload, **token_facts(tokens.meta))

    def _facts(self, index: int) -> dict[str, Any]:
        return token_facts(self.reader[index].meta)


def _same(tokens: Tokens) -> Tokens:
    return tokens
