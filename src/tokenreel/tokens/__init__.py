"""Ids at rest: files, shards and byte-pair merges. Nothing here loads a network."""
