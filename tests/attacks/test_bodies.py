"""Bodies of the largest size that are wrong in every item: the server answers at once, and serves others meanwhile."""

from collections.abc import Iterator

import pytest

from attack_inputs import BODIES, filled
from attacked import MAX_GROWTH_BYTES, MAX_LATE_SECONDS, AttackedServer
from untouched import untouched

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module")
def server() -> Iterator[AttackedServer]:
    with AttackedServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _as_before(server: AttackedServer) -> Iterator[None]:
    """Afterwards nothing runs, nothing is open, and the golden request has the same answer."""
    with untouched(server, 2 * MAX_GROWTH_BYTES):
        yield


@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("size", [500_000, 2_000_000])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_of_wrong_items_costs_little(server: AttackedServer, name: str, size: int, at_once: int) -> None:
    """It is refused, the event loop is never held, and no memory is taken."""
    path, start, item, end = BODIES[name]
    damage = server.attack(path, filled(start, item, end, size), at_once)
    assert set(damage.statuses) <= {400, 413, 422}, damage
    assert damage.late < server.calm_late + MAX_LATE_SECONDS, damage
    assert damage.growth < MAX_GROWTH_BYTES, damage
