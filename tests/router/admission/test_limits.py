"""Limits on concurrent and queued requests that tenants share, and the drain rate behind `Retry-After`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peregrine_router.admission.limits import ALPHA, ConcurrencyLimit, DrainRate, QueueLimit, shortfall
from peregrine_router.request import InvalidRequest, Overloaded, Request, SamplingParams


def make_request(tenant: str = "", num_input: int = 1) -> Request:
    return Request("", (1,) * num_input, SamplingParams(), 1, tenant=tenant)


@given(st.integers(2, 300), st.lists(st.sampled_from("abc"), max_size=400))
def test_no_tenant_takes_every_place(limit: int, arrivals: list[str]) -> None:
    """Tenants that use places always leave one for a tenant that uses none."""
    used = dict.fromkeys("abc", 0)
    for tenant in arrivals:
        if shortfall(limit, sum(used.values()), used[tenant], 1, tenant):
            continue
        used[tenant] += 1
        assert sum(used.values()) <= limit
        if used[tenant] > 1:
            assert shortfall(limit, sum(used.values()), 0, 1, "newcomer") == 0


def test_a_flood_gets_seven_of_eight_places_and_the_nameless_all() -> None:
    """A tenant with a key leaves an eighth of the places free; the nameless tenant, which is alone, takes all."""
    for tenant, places in (("key", 112), ("", 128)):
        used = 0
        while not shortfall(128, used, used, 1, tenant):
            used += 1
        assert used == places
    assert ALPHA == 7


def test_a_shortfall_is_just_enough() -> None:
    """The request is accepted once as many places as its shortfall are free, and not before."""
    for used, used_by_tenant, count in ((128, 128, 1), (120, 112, 3), (128, 100, 8), (113, 113, 1)):
        missing = shortfall(128, used, used_by_tenant, count, "key")
        assert missing > 0
        assert shortfall(128, used - missing, used_by_tenant - missing, count, "key") == 0
        assert shortfall(128, used - missing + 1, used_by_tenant - missing + 1, count, "key") == 1


def test_the_wait_follows_the_rate() -> None:
    """At two ends per second four more take two seconds, whatever happened more than ten seconds ago."""
    rate = DrainRate()
    rate.begin(0.0)
    for number in range(1, 101):
        rate.end(number / 10, 1, is_last=False)
    for number in range(1, 31):
        rate.end(10 + number / 2, 1, is_last=False)
    assert rate.seconds_until(25.0, 4) == pytest.approx(2.0, rel=0.1)


def test_the_wait_is_bounded() -> None:
    """The estimate is at least one second and at most a minute."""
    rate = DrainRate()
    rate.begin(0.0)
    rate.end(1.0, 100, is_last=False)
    assert rate.seconds_until(1.0, 1) == 1.0
    assert rate.seconds_until(5.0, 10_000) == 60.0


def test_without_an_end_the_wait_is_as_long_as_it_was() -> None:
    """If nothing has ended for 8 s, the estimate is another 8 s."""
    rate = DrainRate()
    rate.begin(100.0)
    assert rate.seconds_until(108.0, 1) == 8.0


def test_idle_time_says_nothing() -> None:
    """After an idle hour the rate is measured from the next start."""
    rate = DrainRate()
    rate.begin(0.0)
    rate.end(1.0, 1, is_last=True)
    rate.begin(3600.0)
    rate.end(3602.0, 1, is_last=False)
    assert rate.seconds_until(3602.0, 2) == pytest.approx(4.0)


def test_admission_gives_back_to_whom_it_took_from() -> None:
    """A tenant over its threshold is accepted again once it has released permits; others always are."""
    admission = ConcurrencyLimit(8)
    admission.acquire(7, "a")
    with pytest.raises(Overloaded):
        admission.acquire(1, "a")
    admission.acquire(1, "b")
    admission.release(1, "b")
    admission.release(2, "a")
    admission.acquire(1, "a")


def test_a_request_that_never_fits_is_no_matter_of_waiting() -> None:
    """More sequences than the limit are refused for good, with the option that sets it, even if nothing runs."""
    with pytest.raises(InvalidRequest, match="--max-concurrent-requests"):
        ConcurrencyLimit(8).acquire(9, "a")


def test_a_queue_is_bounded_in_requests() -> None:
    """Free slots of the batch count as room in the queue, since they are filled from it at once."""
    bound, waiting = QueueLimit(max_requests=2), [make_request(), make_request()]
    bound.check([make_request()], waiting[:1], 0)
    bound.check([make_request()], waiting, 1)
    with pytest.raises(Overloaded):
        bound.check([make_request()], waiting, 0)
    with pytest.raises(Overloaded):
        bound.check([make_request()] * 2, waiting[:1], 0)


def test_a_queue_is_bounded_in_tokens() -> None:
    """Waiting prompts have at most `max_tokens` together; a single longer one may wait alone."""
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
