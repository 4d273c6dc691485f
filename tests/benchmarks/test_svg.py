"""Charts are XML that a browser draws."""

from xml.etree import ElementTree

import pytest
from benchmarks.plots.svg import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Series, cumulative, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def lines(text: str) -> list[list[tuple[float, float]]]:
    """The points of each line."""
    found = ElementTree.fromstring(text).iter(f"{SVG}polyline")
    return [[tuple(map(float, point.split(","))) for point in each.attrib["points"].split()] for each in found]  # type: ignore[misc]


@pytest.mark.parametrize("is_log", [False, True])
def test_every_point_lies_within_the_frame(is_log: bool) -> None:
    """The lowest x at the left edge, the highest at the right; y grows upwards."""
    text = line_chart("a < b & c", "x", "y", [Series("one", [(1, 0), (10, 5), (1000, 50)])], is_log)
    (points,) = lines(text)
    assert (points[0][0], points[-1][0]) == (LEFT, WIDTH - RIGHT)
    assert all(TOP <= y <= HEIGHT for _, y in points)
    assert points[0][1] > points[1][1] > points[2][1]


@pytest.mark.parametrize("points", [[(3, 0)], [(3, 0), (3, 0)], [(0, 0), (1e-9, 1e-9)], [(0, 1e12), (5, 0)]])
@pytest.mark.parametrize("is_log", [False, True])
def test_odd_data_is_drawn_all_the_same(points: list[tuple[float, float]], is_log: bool) -> None:
    """One point, equal points, zeros on a log axis, tiny and huge numbers."""
    if is_log and not any(x > 0 for x, _ in points):
        pytest.skip("nothing to draw")
    assert len(lines(line_chart("", "", "", [Series("s", points)], is_log))) == 1


def test_nothing_is_said_to_be_nothing() -> None:
    """An empty chart would be mistaken for a flat line."""
    with pytest.raises(ValueError, match="no points"):
        line_chart("", "", "", [Series("s", [])])


def test_ticks_are_round_numbers_within_the_range() -> None:
    """Multiples of 1, 2 or 5; on a log axis powers of ten alone if there are many."""
    assert Axis(0, 11.5, 0, 100).ticks() == [0, 2, 4, 6, 8, 10]
    assert Axis(3, 300, 0, 100, is_log=True).ticks() == [5, 10, 20, 50, 100, 200]
    assert Axis(3, 200_000, 0, 100, is_log=True).ticks() == [10, 100, 1000, 10_000, 100_000]


def test_a_cumulative_line_ends_at_all_of_the_values() -> None:
    """Each point: how many per cent are at most so much."""
    assert cumulative([3.0, 1.0, 2.0, 4.0]) == [(1.0, 25.0), (2.0, 50.0), (3.0, 75.0), (4.0, 100.0)]
    assert len(cumulative([float(i) for i in range(10_000)])) == 200
    assert cumulative([]) == []
