"""How a step is shared: between answers and prompts, and what a tenant with more than its share leaves to others.

A request that comes waits for the step that runs and, now and then, for one that is sent already; then its prompt is
computed beside the answers of others, in pieces. A flood makes all of that long. So a tenant with more requests than
its share, whether they run or wait, stays out of a step that computes the prompt of another's first answer, but never
of two in turn; and while others may come, its own steps are short: its answers take turns, and its prompts get what is
left. Short steps cost it a little throughput. A tenant that is alone is never slowed.
"""

from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple

from peregrine_router.scheduling.fair_queue import FairQueue
from peregrine_router.scheduling.sequence import Sequence

MIN_CHUNK = 32
"""Tokens of prompts that a step computes beside decodes, or half as many as decodes: prompts, too, must go on. Nor are
steps cut shorter for others: below, a step mostly reads weights."""


class StepBudget(NamedTuple):
    """The size of the next step, in tokens."""

    max_tokens: int
    """Tokens of a step; more only if there are more decodes."""
    max_mixed_tokens: int
    """Tokens of a step that also decodes: its streams wait for the whole step."""


class StepLimits(NamedTuple):
    """The limits of a step, by what is in it."""

    max_tokens: int
    """Of a step with decodes in it."""
    min_chunk: int
    """Tokens of prompts in such a step, whatever its decodes."""
    paused_tenants: Collection[str] = ()
    """Tenants that leave the whole step to the first token of another."""
    throttled_tenants: Collection[str] = ()
    """Tenants whose decodes are `max_throttled_decodes` at most."""
    max_throttled_decodes: int = 0
    is_throttled_only: bool = False
    """Whether only those have anything to compute: the bounds then hold without decodes, too."""

    def room(self, num_decodes: int, budget: int) -> int:
        """How many tokens of prompts go beside so many decodes, of a budget."""
        if not (num_decodes or self.is_throttled_only):
            return budget
        return min(budget, max(self.max_tokens - num_decodes, self.min_chunk, num_decodes // 2))


class TenantThrottle:
    """Decides it, step by step."""

    def __init__(self, queue: FairQueue[Sequence], capacity: int, lead: int, min_chunk: int = MIN_CHUNK) -> None:
        """`capacity`: maximum running sequences. `lead`: a newcomer's prefill may pause another tenant's decodes only
        if the newcomer has received at most `lead` more virtual tokens than that tenant."""
        self._min_chunk = min_chunk
        self._queue = queue
        self._capacity = capacity
        self._max_lead = lead
        self._paused_tenants: Collection[str] = ()
        """By the last step."""
        self._turn = 0
        """The slot whose decode is next where throttled tenants take turns."""

    def limits(
        self,
        running: Collection[Sequence],
        prefilling: Collection[Sequence],
        has_room: Callable[[Sequence], bool],
        max_tokens: int,
    ) -> StepLimits:
        """The limits of the next step. `prefilling`: sequences whose prompts are being computed. `has_room`: whether a
        waiting sequence can start. `max_tokens`: the budget of a step that also decodes."""
        large = self._over_share(running)
        if not large:
            self._paused_tenants = ()
            return StepLimits(max_tokens, self._min_chunk)
        newcomers = self._newcomers(large, running, prefilling, has_room)
        paused_tenants = {tenant for tenant in large if any(self._goes_before(each, tenant) for each in newcomers)}
        self._paused_tenants = paused_tenants.difference(self._paused_tenants)
        throttled_tenants = {tenant for tenant in large if self._queue.expects_another(tenant)}
        most = max(max_tokens // 2, self._min_chunk)
        if throttled_tenants and not self._paused_tenants and self._is_only_for(throttled_tenants, prefilling):
            return StepLimits(most, most // 3, (), throttled_tenants, most * 2 // 3, is_throttled_only=True)
        return StepLimits(max_tokens, self._min_chunk, self._paused_tenants, throttled_tenants, most * 2 // 3)

    def decodes(self, decodes: list[Sequence], limits: StepLimits) -> list[Sequence]:
        """The decodes that a step of these limits computes; those of throttled tenants take turns by slot."""
        decodes = [each for each in decodes if each.request.tenant not in limits.paused_tenants]
        throttled = [each for each in decodes if each.request.tenant in limits.throttled_tenants]
        if len(throttled) <= limits.max_throttled_decodes:
            return decodes
        throttled.sort(key=lambda each: (each.slot - self._turn) % self._capacity)
        self._turn = throttled[limits.max_throttled_decodes - 1].slot + 1
        out = set(throttled[limits.max_throttled_decodes :])
        return [each for each in decodes if each not in out]

    def _over_share(self, running: Collection[Sequence]) -> set[str]:
        """Tenants with more requests than an equal part of the capacity. Those that wait count as well: where prompts
        are long, a flood never runs all at once."""
        if self._queue.num_tenants < 2:
            return set()
        counts = Counter(each.request.tenant for each in running)
        share = self._capacity // max(len(counts), 2)
        return {tenant for tenant, count in counts.items() if count + self._queue.num_waiting(tenant) > share}

    def _newcomers(
        self,
        large: set[str],
        running: Collection[Sequence],
        prefilling: Collection[Sequence],
        has_room: Callable[[Sequence], bool],
    ) -> list[Sequence]:
        """Whose tenants have no answer under way: those that are prefilling, and the next that waits."""
        answering = {each.request.tenant for each in running if each.num_generated}
        newcomers = [each for each in prefilling if each.request.tenant not in answering]
        first = self._queue.peek(large | answering)
        return [*newcomers, first] if first is not None and has_room(first) else newcomers

    def _goes_before(self, newcomer: Sequence, tenant: str) -> bool:
        return newcomer.request.tenant != tenant and self._queue.precedes(newcomer, tenant, self._max_lead)

    def _is_only_for(self, tenants: Collection[str], prefilling: Collection[Sequence]) -> bool:
        return self._queue.peek(tenants) is None and all(each.request.tenant in tenants for each in prefilling)
