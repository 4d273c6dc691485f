"""The queue of waiting requests: the tenant that was served least is next, so that no tenant's flood delays another.

Virtual token counters: Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024), algorithm 2. Each tenant
has a counter of the tokens computed for it, weighted by cost (virtual tokens); the next request is of the waiting
tenant with the lowest counter. A tenant that returns is lifted to the lowest counter of those that wait: time in which
it asked for nothing is no credit.

Within a tenant short prompts go before long ones, up to a point: a request's virtual deadline is when LENGTH_WEIGHT
times its own tokens have been served since it arrived, and the earliest deadline is next. So a prompt of 2,000 tokens
delays none of 20, and itself waits for no more than what arrives while 8,000 tokens are served.
"""

from bisect import insort
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from peregrine_router.request import Request

INPUT_WEIGHT = 1
OUTPUT_WEIGHT = 2
"""Virtual tokens of a generated token and of a prompt token (`INPUT_WEIGHT`), as in the paper."""
LENGTH_WEIGHT = 4
"""Virtual deadline of a request, in multiples of its own tokens. 0 is first come, first served; a large one is shortest
first, which may starve long prompts."""
EXPECTED_TOKENS = 16_384
"""Another tenant counts as active until this many virtual tokens have been served since its last request (about a
minute on a CPU)."""
KEPT_TENANTS = 1024
"""Idle tenants are forgotten once there are this many tenants, or twice as many as could not be forgotten last time."""
_RESUMED, _ARRIVED = 0, 1


class Waiting(Protocol):
    """An item of the queue, compared by identity."""

    virtual_deadline: int
    """Set by the queue: the clock, in virtual tokens of all tenants, at which it should have been served."""

    @property
    def request(self) -> Request: ...


T = TypeVar("T", bound=Waiting)
Rank = tuple[int, int, int, int]
"""(_RESUMED or _ARRIVED, minus the priority, virtual deadline, number): a tenant's lowest is next. No two are equal."""


@dataclass(slots=True)
class _Tenant(Generic[T]):
    counter: int = 0
    served: int = 0
    """Virtual tokens, like the counter, but never lifted."""
    waiting: list[tuple[Rank, T]] = field(default_factory=list)
    """In order of rank."""


class FairQueue(Generic[T]):
    """The waiting requests of all tenants; within a tenant preempted ones first, then by priority, then by virtual
    deadline."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant[T]] = {}
        self._waiting: dict[str, _Tenant[T]] = {}
        """The tenants with requests in the queue."""
        self._forget_at = KEPT_TENANTS
        self._ranks: dict[T, Rank] = {}
        self._last_served = _Tenant[T]()
        """The tenant whose request started last."""
        self._arrivals: dict[str, int] = {}
        """Clock of each tenant's last arrival, the earliest first."""
        self._next_number = 0
        self._clock = 0
        """Virtual tokens served to all tenants."""

    def __len__(self) -> int:
        return len(self._ranks)

    def __contains__(self, item: T) -> bool:
        return item in self._ranks

    def __iter__(self) -> Iterator[T]:
        """In no particular order."""
        return iter(self._ranks)

    def append(self, item: T, num_tokens: int) -> None:
        """Queues a new request that has `num_tokens` to compute before its first output token."""
        tenant = self._tenant_of(item)
        if not tenant.waiting:
            tenant.counter = max(tenant.counter, self._least())
        self._record_arrival(item.request.tenant)
        item.virtual_deadline = self._clock + LENGTH_WEIGHT * num_tokens
        self._insert(item, (_ARRIVED, -item.request.priority, item.virtual_deadline, self._take_number()))

    def appendleft(self, item: T) -> None:
        """Queues a preempted request: first of its tenant's, and not charged for its prompt again."""
        self._insert(item, (_RESUMED, 0, 0, -self._take_number()))

    def peek(self, exclude: Collection[str] = ()) -> T | None:
        """The next request that is not of an excluded tenant; None if there is none."""
        tenant = self._next(exclude)
        return None if tenant is None else tenant.waiting[0][1]

    def take(self, item: T) -> None:
        """Removes a queued request because it starts to run, and charges its tenant for the prompt if it is new."""
        tenant, rank = self._tenant_of(item), self._remove(item)
        self._last_served = tenant
        if rank[0] == _ARRIVED:
            self._charge(tenant, INPUT_WEIGHT * len(item.request.prompt_ids))

    def remove(self, item: T) -> None:
        """Removes a queued request without charging for it."""
        self._remove(item)

    def replace(self, item: T, successor: T) -> None:
        """`successor`, of the same tenant, takes the place of a queued request."""
        self._insert(successor, self._remove(item))

    @property
    def num_tenants(self) -> int:
        """Tenants whose counters are kept: those that wait or were served of late, and up to KEPT_TENANTS others."""
        return len(self._tenants)

    def num_waiting(self, tenant: str) -> int:
        """Requests of a tenant in the queue."""
        return len(self._tenants[tenant].waiting) if tenant in self._tenants else 0

    def expects_another(self, tenant: str) -> bool:
        """Whether a tenant other than this one is active, and may send a request."""
        last = next((name for name in reversed(self._arrivals) if name != tenant), None)
        return last is not None and self._clock - self._arrivals[last] < EXPECTED_TOKENS

    def precedes(self, item: T, tenant: str, lead: int) -> bool:
        """Whether a request's tenant was served at most `lead` virtual tokens more than another, the request's own
        prompt aside."""
        charged = 0 if item in self else INPUT_WEIGHT * len(item.request.prompt_ids)
        return self.counter(item.request.tenant) - charged <= self.counter(tenant) + lead

    def charge_outputs(self, tenants: Iterable[str]) -> None:
        """Charges a generated token to each of these tenants, which need not have a request in the queue."""
        counts: dict[str, int] = {}
        for name in tenants:  # Making a `Counter` takes as long as counting a hundred.
            counts[name] = counts.get(name, 0) + 1
        for name, count in counts.items():
            self._charge(self._tenant(name), OUTPUT_WEIGHT * count)

    def counter(self, tenant: str) -> int:
        """The virtual tokens charged to a tenant, lifts included."""
        return self._tenants[tenant].counter if tenant in self._tenants else 0

    def check_integrity(self) -> None:
        """Raises AssertionError unless every request is in the queue of its tenant, once, and in order."""
        assert self._waiting == {name: tenant for name, tenant in self._tenants.items() if tenant.waiting}
        entries = [entry for tenant in self._waiting.values() for entry in tenant.waiting]
        assert len(entries) == len(self._ranks), "a request is queued twice, or lost"
        assert all(self._ranks.get(item) == rank for rank, item in entries), "a request has lost its rank"
        for tenant in self._tenants.values():
            ranks = [rank for rank, _ in tenant.waiting]
            assert ranks == sorted(ranks), "a queue is out of order"

    def _charge(self, tenant: _Tenant[T], tokens: int) -> None:
        self._clock += tokens
        tenant.counter += tokens
        tenant.served += tokens

    def _tenant_of(self, item: T) -> _Tenant[T]:
        return self._tenant(item.request.tenant)

    def _tenant(self, name: str) -> _Tenant[T]:
        tenant = self._tenants.get(name)
        if tenant is None:
            self._forget_idle()
            # A tenant that was forgotten while it ran had received no more than this.
            tenant = self._tenants[name] = _Tenant(self._least())
        return tenant

    def _record_arrival(self, name: str) -> None:
        self._arrivals.pop(name, None)
        self._arrivals[name] = self._clock
        while self._clock - self._arrivals[first := next(iter(self._arrivals))] >= EXPECTED_TOKENS:
            del self._arrivals[first]

    def _forget_idle(self) -> None:
        """Forgets tenants to whom it makes no difference: returning, they would be lifted as a new one is."""
        if len(self._tenants) < self._forget_at:
            return
        least = self._least()
        self._tenants = {
            name: tenant
            for name, tenant in self._tenants.items()
            if tenant.waiting or tenant.counter > least or name in self._arrivals
        }
        self._forget_at = max(KEPT_TENANTS, 2 * len(self._tenants))

    def _take_number(self) -> int:
        self._next_number += 1
        return self._next_number

    def _insert(self, item: T, rank: Rank) -> None:
        tenant = self._tenant_of(item)
        self._ranks[item] = rank
        self._waiting[item.request.tenant] = tenant
        insort(tenant.waiting, (rank, item), key=_rank)

    def _remove(self, item: T) -> Rank:
        tenant, rank = self._tenant_of(item), self._ranks.pop(item)
        tenant.waiting.remove((rank, item))
        if not tenant.waiting:
            del self._waiting[item.request.tenant]
        return rank

    def _least(self) -> int:
        """The counter to which a returning tenant is lifted."""
        return min((tenant.counter for tenant in self._waiting.values()), default=self._last_served.counter)

    def _next(self, exclude: Collection[str]) -> _Tenant[T] | None:
        # A lifted tenant equals those it was lifted to: of these the one that was served less is next.
        return min(
            (tenant for name, tenant in self._waiting.items() if name not in exclude),
            key=lambda tenant: (tenant.counter, tenant.served, tenant.waiting[0][0]),
            default=None,
        )


def _rank(entry: tuple[Rank, object]) -> Rank:
    return entry[0]
