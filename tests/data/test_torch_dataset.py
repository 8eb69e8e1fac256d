from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from listed import Numbers, flat, number, number_and_draw
from torch.utils.data import DataLoader

from tokenreel.data.torch_dataset import ExampleDataset, WorkerFeeder, make_loader
from tokenreel.errors import InputError, TokenReelWarning

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine's cores


def stacked(items):
    return torch.tensor(items)


def as_array(example, rng):
    return np.full((2, 3), number(example, rng), np.float32)


def loader(count=23, *, num_workers=2, broken=(), transform=number, **options):
    return make_loader(
        Numbers(count, broken),
        transform,
        num_workers=num_workers,
        start_method="fork" if num_workers else None,
        **{"batch_size": 4, **options},
    )


def test_workers_give_the_stream_of_one_process_for_epochs():
    with loader(transform=number_and_draw) as stream:
        assert isinstance(stream, WorkerFeeder)
        alone = loader(num_workers=0, transform=number_and_draw)
        assert [list(stream), list(stream)] == [list(alone), list(alone)]
        assert stream.state_dict() == alone.state_dict()


@pytest.mark.parametrize(("cut", "workers_after"), [(1, 2), (4, 0), (7, 1)])
def test_resume_is_exact_while_workers_are_ahead(cut, workers_after):
    """Workers have prefetched up to 4 batches beyond the cut; what counts is what was handed over."""
    whole = list(islice(loader(num_workers=0, transform=number_and_draw).forever(), 14))
    with loader(transform=number_and_draw) as first:
        begun = list(islice(first.forever(), cut))
        state = json.loads(json.dumps(first.state_dict()))
    with loader(num_workers=workers_after, transform=number_and_draw) as second:
        second.load_state_dict(state)
        assert begun + list(islice(second.forever(), 14 - cut)) == whole


KILLED = """
import json, sys, time
from listed import Numbers, number_and_draw
from tokenreel.data.torch_dataset import make_loader

loader = make_loader(Numbers(40), number_and_draw, batch_size=4, num_workers=1, start_method="fork")
for batch in loader.forever():
    print(json.dumps([batch, loader.state_dict()]), flush=True)
    time.sleep(0.05)
"""


def test_a_killed_run_goes_on_with_what_it_had_not_used():
    whole = list(islice(loader(40, num_workers=0, transform=number_and_draw).forever(), 20))
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}){KILLED}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        lines = [json.loads(run.stdout.readline()) for _ in range(13)]
        run.send_signal(signal.SIGKILL)
    begun = [[tuple(item) for item in batch] for batch, _ in lines]
    stream = loader(40, num_workers=0, transform=number_and_draw)
    stream.load_state_dict(lines[-1][1])
    assert begun + list(islice(stream.forever(), 7)) == whole


def test_workers_are_told_where_to_go_within_an_epoch():
    with loader() as stream:
        begun = list(islice(stream, 2))
        assert begun + list(stream) == list(loader(num_workers=0))
        stream.set_epoch(0, 8)
        assert begun + list(stream) == list(loader(num_workers=0))
        stream.set_epoch(0)
        items = list(islice(stream.items(), 7))
        assert items + list(stream.items()) == flat(loader(num_workers=0))
        stream.close()
        stream.set_epoch(0)
        assert list(stream) == list(loader(num_workers=0))  # close ends the workers; iterating starts new ones


def test_broken_examples_of_workers_are_named_here():
    with loader(12, broken=(3, 7), batch_size=3, shuffle=False) as stream:
        with pytest.warns(TokenReelWarning, match="skipped the broken example") as caught:
            assert list(stream) == [[0, 1, 2], [4, 5], [6, 8], [9, 10, 11]]
        assert len(caught) == 2
        assert [one.key for one in stream.broken] == ["n3", "n7"]


def test_items_are_collated_in_the_worker_and_arrays_stay_arrays():
    with loader(9, collate=stacked, shuffle=False, num_workers=1) as stream:
        batches = list(stream)
        assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    with loader(2, transform=as_array, num_workers=1, shuffle=False) as stream:
        ((first, _),) = stream
        assert isinstance(first, np.ndarray)
        assert first.dtype == np.float32


def test_global_random_numbers_of_torch_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with loader(num_workers=1) as stream:
        list(stream)
        list(stream)
    assert torch.equal(torch.rand(3), expected)


def test_an_error_of_the_transform_comes_up_with_its_example():
    def stumbles(example, rng):
        raise KeyError("no such thing")

    with loader(transform=stumbles, shuffle=False) as stream, pytest.raises(KeyError, match="making the example n0"):
        list(stream)


def test_spawned_workers_need_no_more_than_pickling():
    with make_loader(
        Numbers(9), number, batch_size=2, num_workers=1, shuffle=False, start_method="spawn"
    ) as stream:  # fmt: skip
        assert flat(stream) == list(range(9))


def test_a_dataset_for_loaders_of_ones_own():
    dataset = ExampleDataset(Numbers(23), number, seed=2)
    epochs = []
    loader = DataLoader(dataset, batch_size=4, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    for epoch in range(2):
        dataset.set_epoch(epoch)
        epochs.append(torch.cat(list(loader)).tolist())
    del loader
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(23))
    assert epochs[0] != epochs[1]
    ranks = [list(ExampleDataset(Numbers(10), number, rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(flat(ranks)) == list(range(10))
    with pytest.warns(TokenReelWarning, match="n1"):
        assert list(ExampleDataset(Numbers(3, [1]), number, shuffle=False)) == [0, 2]


def test_wrong_arguments():
    with pytest.raises(InputError, match="num_workers must be 0 or more"):
        loader(num_workers=-1)
    with pytest.raises(InputError, match="rank must lie"):
        ExampleDataset(Numbers(3), number, rank=1)
