from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tokenreel.errors import InputError
from tokenreel.patches.patchify import patchify, unpatchify
from tokenreel.types import Grid

sides = st.integers(1, 9)
patch_sizes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
dtypes = st.sampled_from([np.uint8, np.uint16, np.int32, np.int64, np.float16, np.float32, np.float64, np.bool_])


def reference(video: np.ndarray, patch_size: tuple[int, int, int]) -> np.ndarray:
    """Loops and slices, as one would explain it."""
    grid = Grid.of(*video.shape[:3], patch_size)  # type: ignore[misc]
    padded = np.pad(video, [*((0, -side % step) for side, step in zip(video.shape, patch_size)), (0, 0)], mode="edge")
    pt, ph, pw = patch_size
    rows = [
        padded[t * pt : (t + 1) * pt, h * ph : (h + 1) * ph, w * pw : (w + 1) * pw].reshape(-1)
        for t in range(grid.t)
        for h in range(grid.h)
        for w in range(grid.w)
    ]
    return np.stack(rows)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_numpy_and_torch_equal_the_loops_and_invert_exactly(data: st.DataObject) -> None:
    shape = (*data.draw(st.tuples(sides, sides, sides)), data.draw(st.integers(1, 4)))
    patch_size = data.draw(patch_sizes)
    dtype = data.draw(dtypes)
    video = data.draw(npst.arrays(dtype, shape, elements=npst.from_dtype(np.dtype(dtype), allow_nan=False)))
    patches = patchify(video, patch_size)
    np.testing.assert_array_equal(patches, reference(video, patch_size))
    size = (shape[0], shape[1], shape[2])
    back = unpatchify(patches, patch_size, size)
    assert back.dtype == video.dtype
    np.testing.assert_array_equal(back, video)
    tensor = torch.from_numpy(video.copy())
    in_torch = patchify(tensor, patch_size)
    np.testing.assert_array_equal(in_torch.numpy(), patches)
    assert torch.equal(unpatchify(in_torch, patch_size, size), tensor)


def test_arrays_that_are_not_contiguous(rng: np.random.Generator) -> None:
    video = rng.integers(0, 256, (3, 20, 8, 6), dtype=np.uint8).transpose(0, 2, 1, 3)[::-1, :, ::2, ::2]
    patches = patchify(video, (2, 3, 4))
    np.testing.assert_array_equal(patches, reference(video, (2, 3, 4)))
    back = unpatchify(patches[:, ::-1][:, ::-1], (2, 3, 4), video.shape[:3])
    np.testing.assert_array_equal(back, video)


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((0, 4, 4, 3))])
def test_what_is_no_video_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="T, H, W, C"):
        patchify(bad, (1, 2, 2))


@pytest.mark.parametrize("shape", [(3, 12), (4, 13), (4, 12, 1)])
def test_patches_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="do not fit"):
        unpatchify(np.zeros(shape), (1, 2, 2), (1, 4, 4))
