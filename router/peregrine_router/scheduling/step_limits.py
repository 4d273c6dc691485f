"""The limits of a step: prefill tokens beside decodes, and how a tenant that is over its share is throttled.

A request that arrives waits for the step that runs and sometimes for the next one, which is sent already; then its
prompt is computed in chunks beside the decodes of others. A flood makes all of that long. So a tenant with more
requests than its share, running and waiting, is paused for a step that computes a newcomer's prompt, but never for two
steps in a row. And while other tenants are active its own steps are short: its decodes take turns, and its prompts get
what is left. Short steps cost it a little throughput. A tenant that is alone is never slowed down.
"""

from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple

from peregrine_router.scheduling.fair_queue import FairQueue
from peregrine_router.scheduling.sequence import Sequence

MIN_CHUNK = 32
"""Minimum prefill tokens in a step that also decodes (or num_decodes // 2 if larger), so that prompts always progress.
Also the lower bound of throttled steps: below about 32 rows a step is bound by reading weights, so that a smaller one
saves no time."""


class StepBudget(NamedTuple):
    """The size of the next step, in tokens."""

    max_tokens: int
    """Tokens of a step; more only if there are more decodes."""
    max_mixed_tokens: int
    """Tokens of a step that also decodes: its streams wait for the whole step."""


class StepLimits(NamedTuple):
    """The limits of a step, by what is in it."""

    max_tokens: int
    """Tokens of a step that also decodes."""
    min_chunk: int
    """Minimum prefill tokens in such a step, however many its decodes."""
    paused_tenants: Collection[str] = ()
    """Tenants that take no part in the step."""
    throttled_tenants: Collection[str] = ()
    """Tenants that have at most `max_throttled_decodes` decodes in the step, all of them together."""
    max_throttled_decodes: int = 0
    is_throttled_only: bool = False
    """Whether only throttled tenants have work: the limits then hold for steps without decodes as well."""

    def room(self, num_decodes: int, budget: int) -> int:
        """Prefill tokens in a step of `num_decodes`, at most `budget`."""
        if not (num_decodes or self.is_throttled_only):
            return budget
        return min(budget, max(self.max_tokens - num_decodes, self.min_chunk, num_decodes // 2))


class TenantThrottle:
    """Finds the tenants over their share, and pauses or throttles them step by step."""

    def __init__(self, queue: FairQueue[Sequence], capacity: int, lead: int, min_chunk: int = MIN_CHUNK) -> None:
        """`capacity`: maximum running sequences. `lead`: a newcomer's prefill may pause another tenant's decodes only
        if the newcomer has received at most `lead` more virtual tokens than that tenant."""
        self._min_chunk = min_chunk
        self._queue = queue
        self._capacity = capacity
        self._max_lead = lead
        self._paused_tenants: Collection[str] = ()
        """The tenants that the last step paused."""
        self._turn = 0
        """The slot from which the next throttled step's decodes are chosen."""

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
        """The decodes within the limits of a step; those of throttled tenants take turns by slot."""
        decodes = [each for each in decodes if each.request.tenant not in limits.paused_tenants]
        throttled = [each for each in decodes if each.request.tenant in limits.throttled_tenants]
        if len(throttled) <= limits.max_throttled_decodes:
            return decodes
        throttled.sort(key=lambda each: (each.slot - self._turn) % self._capacity)
        self._turn = throttled[limits.max_throttled_decodes - 1].slot + 1
        out = set(throttled[limits.max_throttled_decodes :])
        return [each for each in decodes if each not in out]

    def _over_share(self, running: Collection[Sequence]) -> set[str]:
        """Tenants with more requests than an equal part of the capacity. Waiting requests count as well: where prompts
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
        """The prefilling sequences, and the next waiting one, whose tenants have no sequence that generates."""
        answering = {each.request.tenant for each in running if each.num_generated}
        newcomers = [each for each in prefilling if each.request.tenant not in answering]
        first = self._queue.peek(large | answering)
        return [*newcomers, first] if first is not None and has_room(first) else newcomers

    def _goes_before(self, newcomer: Sequence, tenant: str) -> bool:
        return newcomer.request.tenant != tenant and self._queue.precedes(newcomer, tenant, self._max_lead)

    def _is_only_for(self, tenants: Collection[str], prefilling: Collection[Sequence]) -> bool:
        return self._queue.peek(tenants) is None and all(each.request.tenant in tenants for each in prefilling)
