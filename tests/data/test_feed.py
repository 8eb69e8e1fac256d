from __future__ import annotations

import json
import warnings
from itertools import islice

import pytest
from listed import Numbers, flat, number, number_and_draw

from tokenreel.data.collection import Subset
from tokenreel.data.feed import Feeder, as_is
from tokenreel.errors import InputError, MismatchError, TokenReelWarning


def feeder(count=23, **options):
    return Feeder(Numbers(count, options.pop("broken", ())), options.pop("transform", number), **options)


def test_epochs_follow_each_other_in_new_orders():
    stream = feeder(batch_size=4)
    first, second = list(stream), list(stream)
    assert [len(batch) for batch in first] == [4, 4, 4, 4, 4, 3]
    assert len(stream) == 6
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(23))
    assert first != second
    assert (stream.epoch, stream.position) == (2, 0)
    stream.set_epoch(1)
    assert list(stream) == second
    assert list(feeder(batch_size=4, seed=1)) != first
    assert flat(feeder(shuffle=False, batch_size=5)) == list(range(23))


def test_a_loop_that_is_broken_off_goes_on_where_it_was():
    whole = list(feeder(batch_size=4))
    stream = feeder(batch_size=4)
    begun = list(islice(stream, 2))
    assert stream.position == 8
    assert begun + list(stream) == whole


@pytest.mark.parametrize("cut", range(14))
def test_resume_is_exact_at_every_batch_and_over_epochs(cut):
    def stream():
        return feeder(batch_size=4, transform=number_and_draw, seed=5)

    whole = list(islice(stream().forever(), 20))
    first = stream()
    begun = list(islice(first.forever(), cut))
    state = json.loads(json.dumps(first.state_dict()))
    second = stream()
    second.load_state_dict(state)
    assert begun + list(islice(second.forever(), 20 - cut)) == whole


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 11, 22, 23, 30])
def test_resume_is_exact_at_every_item_whatever_the_batch(cut):
    def items(stream):
        while True:
            yield from stream.items()

    whole = list(islice(items(feeder(batch_size=4)), 46))
    first = feeder(batch_size=4)
    begun = list(islice(items(first), cut))
    second = feeder(batch_size=7)
    second.load_state_dict(first.state_dict())
    assert begun + list(islice(items(second), 46 - cut)) == whole


def test_another_number_of_ranks_takes_up_the_rest():
    ranks = [feeder(40, batch_size=3, rank=rank, world_size=2, even="drop") for rank in range(2)]
    begun = [one for rank in ranks for batch in islice(rank, 3) for one in batch]
    assert ranks[0].position == ranks[1].position == 18
    rest = []
    for rank in range(5):
        stream = feeder(40, batch_size=2, rank=rank, world_size=5)
        stream.load_state_dict(ranks[0].state_dict())
        rest += flat(stream)
    assert sorted(begun + rest) == list(range(40))


def test_even_ranks_drop_or_repeat_a_stated_number():
    for even, uneven, length in (("drop", 3, 5), ("pad", 1, 6)):
        ranks = [feeder(23, rank=rank, world_size=4, even=even) for rank in range(4)]
        taken = [flat(rank) for rank in ranks]
        assert [rank.num_uneven for rank in ranks] == [uneven] * 4
        assert [len(one) for one in taken] == [length] * 4
        assert len(set(flat(taken))) == (20 if even == "drop" else 23)
    assert feeder(23, world_size=4).num_uneven == 0
    assert [flat(feeder(2, rank=rank, world_size=4, even="pad", shuffle=False)) for rank in range(4)] == [
        [0], [1], [0], [1],
    ]  # fmt: skip


def test_broken_examples_are_skipped_named_and_counted_once():
    stream = feeder(12, broken=(3, 7), batch_size=3, shuffle=False)
    with pytest.warns(TokenReelWarning) as caught:
        batches = list(stream)
    assert batches == [[0, 1, 2], [4, 5], [6, 8], [9, 10, 11]]
    assert [str(one.message) for one in caught] == [
        "skipped the broken example n3 of numbers: src3 is broken",
        "skipped the broken example n7 of numbers: src7 is broken",
    ]
    assert [(one.number, one.key, one.source, one.reason) for one in stream.broken] == [
        (3, "n3", "src3", "src3 is broken"),
        (7, "n7", "src7", "src7 is broken"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream.set_epoch(0)
        assert list(stream) == batches
        again = feeder(12, broken=(3, 7), batch_size=3, shuffle=False)
        again.load_state_dict(stream.state_dict())
        again.set_epoch(0)
        assert list(again.items()) == flat(batches)
    assert again.broken == stream.broken


@pytest.mark.filterwarnings("ignore::tokenreel.errors.TokenReelWarning")
def test_a_batch_of_broken_ones_is_left_out_and_all_broken_is_an_error():
    assert list(feeder(6, broken=(2, 3), batch_size=2, shuffle=False)) == [[0, 1], [4, 5]]
    with pytest.raises(InputError, match="none of the first 6 examples of numbers can be used; the last, src5: src5"):
        list(feeder(6, broken=range(6), shuffle=False))
    with pytest.raises(InputError, match="none of the first 100 examples"):
        list(feeder(500, broken=range(500), shuffle=False))
    with pytest.raises(InputError, match="none of the first 1 examples"):
        list(feeder(1, broken=[0]))
    stream = feeder(6, broken=(4, 5), shuffle=False)
    stream.set_epoch(0, 4)
    assert list(stream) == []  # only the end of an epoch is broken: no error


def test_errors_that_are_no_fault_of_a_file_go_up():
    def stumbles(example, rng):
        raise KeyError("no such thing")

    with pytest.raises(KeyError) as caught:
        list(feeder(transform=stumbles, shuffle=False))
    assert caught.value.__notes__ == ["while making the example n0 of numbers"]

    def foreign(example, rng):
        raise MismatchError("another tokenizer")

    with pytest.raises(MismatchError):
        list(feeder(transform=foreign))

    def offline(example, rng):
        raise PermissionError(13, "denied")

    with pytest.warns(TokenReelWarning, match="denied"), pytest.raises(InputError, match="none of the first 2"):
        list(feeder(2, transform=offline))


def test_a_state_of_something_else_is_refused():
    state = feeder().state_dict()
    for other, what in [
        (feeder(24), "num_examples=23, this run has 24"),
        (feeder(seed=1), "seed=0"),
        (feeder(shuffle=False), "shuffle=True"),
        (Feeder(Subset(Numbers(30), range(7, 30)), number), "keys_crc32="),
    ]:
        with pytest.raises(MismatchError, match=what):
            other.load_state_dict(state)
    with pytest.raises(MismatchError, match="version 9"):
        feeder().load_state_dict(state | {"version": 9})


def test_collate_and_drop_last():
    stream = feeder(10, batch_size=4, drop_last=True, collate=tuple, shuffle=False)
    assert list(stream) == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert len(stream) == 2
    assert (stream.epoch, stream.position) == (1, 0)
    with pytest.raises(InputError, match="leave collate out"):
        next(stream.items())


def test_draws_depend_on_seed_epoch_and_example_alone():
    def draws(**options):
        return dict(feeder(transform=number_and_draw, **options).items())

    assert draws() == draws(batch_size=5) == draws(shuffle=False)
    assert draws() != draws(seed=1)
    stream = feeder(transform=number_and_draw)
    assert dict(stream.items()) != dict(stream.items())
    alone = feeder(transform=number_and_draw, rank=1, world_size=3)
    assert dict(alone.items()).items() <= draws().items()


def test_an_iteration_ends_when_the_stream_is_moved():
    stream = feeder()
    running = iter(stream)
    next(running)
    stream.set_epoch(4)
    with pytest.raises(InputError, match="this iteration has ended"):
        next(running)
    with feeder() as stream:
        running = iter(stream)
        next(running)
    with pytest.raises(InputError, match="this iteration has ended"):
        next(running)


def test_wrong_arguments():
    with pytest.raises(InputError, match="no examples to feed"):
        feeder(0)
    with pytest.raises(InputError, match="seed must be at least 0"):
        feeder(seed=-1)
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        feeder(batch_size=0)
    with pytest.raises(InputError, match="rank must lie"):
        feeder(rank=3, world_size=3)
    with pytest.raises(InputError, match="at least 0, got -1"):
        feeder().set_epoch(-1)
    with pytest.raises(InputError, match="gives no batch on rank 0: 23 examples for 1 ranks, batches of 30"):
        next(feeder(batch_size=30, drop_last=True).forever())


def test_as_is_hands_examples_on():
    assert [example.key for example in feeder(3, transform=as_is, shuffle=False).items()] == ["n0", "n1", "n2"]
