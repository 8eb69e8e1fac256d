"""Token shards: the ids of many clips in Parquet files, written whole or not at all, read at random.

::

    with ShardWriter("corpus", tokenizer="raw", fingerprint=..., codebook_size=256, layout="bytes") as writer:
        writer.write(tokens)                       # one clip
        writer.write_batch(ids_NL, grid=..., size=..., captions=[...])   # many of equal length

    reader = ShardReader("corpus")                 # or one file of it
    reader[7]                                      # Tokens, as they were written
    ids_N, token_counts_B = reader.ids_batch([3, 5, 8])

A directory holds ``shard-00000.parquet``, ``shard-00001.parquet`` ... and ``_manifest.json``, which lists them with
their checksums. The files are plain Parquet: pandas, DuckDB and ``datasets`` open them as they are. docs/formats.md has
every column. The rooms behind this face: ``shards_columns`` (one record), ``shards_manifest`` (the list of files),
``shards_write`` and ``shards_newfile``, ``shards_file`` (one open file), ``shards_read``.
"""

from __future__ import annotations

from .shards_manifest import MANIFEST_NAME, Manifest, ShardEntry, ShardSpec, rebuild_manifest
from .shards_read import ShardReader
from .shards_write import ShardWriter

__all__ = [
    "MANIFEST_NAME",
    "Manifest",
    "ShardEntry",
    "ShardReader",
    "ShardSpec",
    "ShardWriter",
    "rebuild_manifest",
]
