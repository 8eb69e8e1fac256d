from __future__ import annotations

import pickle

import numpy as np
import pytest

from tokenreel.data.records import ShardCollection
from tokenreel.errors import FormatError, InputError
from tokenreel.tokens.shards import ShardWriter


@pytest.fixture
def corpus(tmp_path, make_tokens):
    with ShardWriter(
        tmp_path / "corpus", tokenizer="raw", fingerprint="f" * 16, codebook_size=1000, layout="grid"
    ) as writer:
        for number in range(5):
            facts = {
                "caption": f"clip {number}",
                "label": number % 2,
                "source": "film.mp4",
                "start_seconds": 1.0 * number,
            }
            writer.write(make_tokens(8 * number, **facts, group=f"g{number // 2}", fresh=True))
        writer.write(make_tokens(40, label="named"))
    return tmp_path / "corpus"


def test_records_are_examples(corpus):
    records = ShardCollection(corpus)
    assert len(records) == 6
    example = records[3]
    np.testing.assert_array_equal(example.tokens().ids_L, np.arange(24, 32))
    assert (example.key, example.kind, example.caption, example.label, example.group) == (
        "3",
        "tokens",
        "clip 3",
        1,
        "g1",
    )
    assert example.meta == {"origin": "film.mp4", "start_seconds": 3.0, "fresh": True}
    assert records.labels == [0, 1, 0, 1, 0, "named"]
    assert records.label_names == (0, 1, "named")
    assert records.groups == ["g0", "g0", "g1", "g1", "g2", None]
    assert ShardCollection(corpus, group=r"(\d)").groups[-1] == "5"


def test_a_group_is_looked_for_in_the_name_of_what_was_encoded(tmp_path, make_tokens):
    with ShardWriter(tmp_path, tokenizer="raw", fingerprint="f" * 16, codebook_size=1000, layout="grid") as writer:
        for number in (7, 3):
            writer.write(make_tokens(8, source=f"wave/performer{number}.mp4"))
    records = ShardCollection(tmp_path, group=r"(performer\d+)")
    assert records.groups == ["performer7", "performer3"]
    assert [example.group for example in records] == records.groups


def test_records_pickle(corpus):
    records = ShardCollection(corpus)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(records))[5].tokens().ids_L, np.arange(40, 48))


def test_one_shard_file_and_a_missing_one(corpus):
    (shard,) = corpus.glob("*.parquet")
    assert len(ShardCollection(shard)) == 6
    shard.unlink()
    with pytest.raises(FormatError, match="missing"):
        ShardCollection(corpus)
    with pytest.raises(InputError):
        ShardCollection(corpus / "gone")
