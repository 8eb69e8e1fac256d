from __future__ import annotations

import pytest

from tokenreel.errors import InputError
from tokenreel.train.term import Term


def test_the_weight_rises_linearly_from_the_start() -> None:
    term = Term(weight=0.5, start_step=100, warmup_steps=50)
    assert [term.at(step) for step in (0, 99, 100, 110, 125, 149, 150, 10**9)] == pytest.approx(
        [0, 0, 0, 0.1, 0.25, 0.49, 0.5, 0.5]
    )


def test_without_warmup_the_weight_jumps() -> None:
    term = Term(weight=0.5, start_step=3)
    assert [term.at(step) for step in (2, 3, 4)] == [0.0, 0.5, 0.5]
    assert Term(weight=2).at(0) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"weight": -1.0},
        {"weight": float("nan")},
        {"weight": float("inf")},
        {"weight": "1"},
        {"weight": 1.0, "start_step": -1},
        {"weight": 1.0, "warmup_steps": 1.5},
    ],
)
def test_bad_terms_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"Term\."):
        Term(**fields)  # type: ignore[arg-type]
