"""Limits that tenants share, the bounded queue, and what Retry-After is made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peregrine_router.admission.limits import ALPHA, ConcurrencyLimit, DrainRate, QueueLimit, shortfall
from peregrine_router.request import Overloaded, Request, SamplingParams


def make_request(tenant: str = "", num_input: int = 1) -> Request:
    return Request("", (1,) * num_input, SamplingParams(), 1, tenant=tenant)


@given(st.integers(2, 300), st.lists(st.sampled_from("abc"), max_size=400))
def test_no_tenant_takes_every_place(limit: int, arrivals: list[str]) -> None:
    """Whoever holds a place leaves one for a tenant that holds none: the last of all is a newcomer's."""
    held = dict.fromkeys("abc", 0)
    for tenant in arrivals:
        if shortfall(limit, sum(held.values()), held[tenant], 1, tenant):
            continue
        held[tenant] += 1
        assert sum(held.values()) <= limit
        if held[tenant] > 1:
            assert shortfall(limit, sum(held.values()), 0, 1, "newcomer") == 0


def test_a_flood_gets_seven_of_eight_places_and_the_nameless_all() -> None:
    """With keys an eighth stays free; without, there is nobody to keep it for."""
    for tenant, places in (("key", 112), ("", 128)):
        held = 0
        while not shortfall(128, held, held, 1, tenant):
            held += 1
        assert held == places
    assert ALPHA == 7


def test_missing_places_are_just_enough() -> None:
    """After as many have left as were missing_places the request is let in, and not before."""
    for held, mine, count in ((128, 128, 1), (120, 112, 3), (128, 100, 8), (113, 113, 1)):
        missing_places = shortfall(128, held, mine, count, "key")
        assert missing_places > 0
        assert shortfall(128, held - missing_places, mine - missing_places, count, "key") == 0
        assert shortfall(128, held - missing_places + 1, mine - missing_places + 1, count, "key") == 1


def test_the_wait_follows_the_rate() -> None:
    """Two ends a second: four more take two seconds, whatever happened more than ten seconds ago."""
    rate = DrainRate()
    rate.begin(0.0)
    for number in range(1, 101):
        rate.end(number / 10, 1, is_last=False)
    for number in range(1, 31):
        rate.end(10 + number / 2, 1, is_last=False)
    assert rate.seconds_until(25.0, 4) == pytest.approx(2.0, rel=0.1)


def test_the_wait_is_bounded() -> None:
    """At least one second, at most a minute."""
    rate = DrainRate()
    rate.begin(0.0)
    rate.end(1.0, 100, is_last=False)
    assert rate.seconds_until(1.0, 1) == 1.0
    assert rate.seconds_until(5.0, 10_000) == 60.0


def test_without_an_end_the_wait_is_as_long_as_it_was() -> None:
    """Nothing has ended for 8 s: nothing says that it will sooner than in another 8 s."""
    rate = DrainRate()
    rate.begin(100.0)
    assert rate.seconds_until(108.0, 1) == 8.0


def test_idle_time_says_nothing() -> None:
    """After an hour without requests the rate is that since the next began."""
    rate = DrainRate()
    rate.begin(0.0)
    rate.end(1.0, 1, is_last=True)
    rate.begin(3600.0)
    rate.end(3602.0, 1, is_last=False)
    assert rate.seconds_until(3602.0, 2) == pytest.approx(4.0)


def test_admission_gives_back_to_whom_it_took_from() -> None:
    """A tenant at its share is let in again once it has given back; another is let in all the while."""
    admission = ConcurrencyLimit(8)
    admission.acquire(7, "a")
    with pytest.raises(Overloaded):
        admission.acquire(1, "a")
    admission.acquire(1, "b")
    admission.release(1, "b")
    admission.release(2, "a")
    admission.acquire(1, "a")


def test_a_queue_is_bounded_in_requests() -> None:
    """Free slots count as room in it, since they are filled from it at once."""
    bound, waiting = QueueLimit(max_requests=2), [make_request(), make_request()]
    bound.check([make_request()], waiting[:1], 0)
    bound.check([make_request()], waiting, 1)
    with pytest.raises(Overloaded):
        bound.check([make_request()], waiting, 0)
    with pytest.raises(Overloaded):
        bound.check([make_request()] * 2, waiting[:1], 0)


def test_a_queue_is_bounded_in_tokens() -> None:
    """The prompts that wait have so many tokens at most; one that is longer by itself may wait alone."""
    bound = QueueLimit(max_tokens=10)
    bound.check([make_request(num_input=50)], [], 0)
    bound.check([make_request(num_input=5)], [make_request(num_input=5)], 9)
    with pytest.raises(Overloaded):
        bound.check([make_request(num_input=6)], [make_request(num_input=5)], 9)


def test_a_flood_does_not_fill_the_queue() -> None:
    """A tenant that has most of the queue is refused while another is not."""
    bound = QueueLimit(max_requests=8)
    waiting = [make_request("noisy") for _ in range(7)]
    with pytest.raises(Overloaded):
        bound.check([make_request("noisy")], waiting, 0)
    bound.check([make_request("quiet")], waiting, 0)
