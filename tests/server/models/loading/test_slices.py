"""A rank's slices of an axis."""

import pytest

from peregrine_server.models.loading.slices import ALIGNMENT, Run, Slice, even, whole


def elements(part: Slice, factor: int = 1) -> dict[int, int]:
    """Target -> source of every element that comes from the checkpoint."""
    return {run.target + i: run.source + i for run in part.runs for i in range(run.length * factor)}


def test_scaling_repeats_every_element() -> None:
    """A slice of heads becomes one of their rows."""
    heads = Slice(3, (Run(4, 0, 2),))
    assert elements(heads.scaled(3)) == {i: 12 + i for i in range(6)}
    assert heads.scaled(3).size == 9


def test_runs_that_continue_each_other_are_joined() -> None:
    """Joined, they are the same elements in fewer reads."""
    parts = Slice(6, (Run(1, 0, 2), Run(3, 2, 1), Run(9, 3, 1)))
    assert parts.merged().runs == (Run(1, 0, 3), Run(9, 3, 1))
    assert elements(parts.merged()) == elements(parts)


@pytest.mark.parametrize("size", [1, 63, 64, 200, 1000])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
def test_even_parts_cover_the_axis_once(size: int, num_ranks: int) -> None:
    """All ranks have the same size, aligned if there are several, and hold every element once."""
    parts = [even(size, rank, num_ranks) for rank in range(num_ranks)]
    assert len({part.size for part in parts}) == 1
    assert num_ranks == 1 or parts[0].size % ALIGNMENT == 0
    assert sorted(source for part in parts for source in elements(part).values()) == list(range(size))
    assert even(size, 0, 1) == whole(size)
