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


class Shares(NamedTuple):
    """The bounds of a step."""

    max_tokens: int
    """Of a step with decodes in it."""
    min_chunk: int
    """Tokens of prompts in such a step, whatever its decodes."""
    held: Collection[str] = ()
    """Tenants that leave the whole step to the first token of another."""
    brief: Collection[str] = ()
    """Tenants whose decodes are `max_brief` at most."""
    max_brief: int = 0
    is_short: bool = False
    """Whether only those have anything to compute: the bounds then hold without decodes, too."""

    def room(self, num_decodes: int, budget: int) -> int:
        """How many tokens of prompts go beside so many decodes, of a budget."""
        if not (num_decodes or self.is_short):
            return budget
        return min(budget, max(self.max_tokens - num_decodes, self.min_chunk, num_decodes // 2))


class Sharing:
    """Decides it, step by step."""

    def __init__(self, queue: FairQueue[Sequence], capacity: int, lead: int) -> None:
        """`capacity` sequences run at most. A tenant whose first answer others are held for was served at most `lead`
        weighted tokens more than they."""
        self.min_chunk = MIN_CHUNK
        self._queue = queue
        self._capacity = capacity
        self._lead = lead
        self._held: Collection[str] = ()
        """By the last step."""
        self._turn = 0
        """The slot whose decode is next where tenants are to be brief."""

    def shares(
        self,
        running: Collection[Sequence],
        begun: Collection[Sequence],
        has_room: Callable[[Sequence], bool],
        max_tokens: int,
    ) -> Shares:
        """Of the next step. `begun` are those whose prompts are being computed, `has_room` tells whether one that waits
        can begin, and a step with decodes in it computes about `max_tokens`."""
        large = self._over_share(running)
        if not large:
            self._held = ()
            return Shares(max_tokens, self.min_chunk)
        newcomers = self._newcomers(large, running, begun, has_room)
        held = {tenant for tenant in large if any(self._goes_before(each, tenant) for each in newcomers)}
        self._held = held.difference(self._held)
        brief = {tenant for tenant in large if self._queue.expects_another(tenant)}
        most = max(max_tokens // 2, self.min_chunk)
        if brief and not self._held and self._is_only_for(brief, begun):
            return Shares(most, most // 3, (), brief, most * 2 // 3, is_short=True)
        return Shares(max_tokens, self.min_chunk, self._held, brief, most * 2 // 3)

    def decodes(self, decodes: list[Sequence], shares: Shares) -> list[Sequence]:
        """Those that are in a step of these bounds; where tenants to be brief have too many, slots take turns."""
        decodes = [each for each in decodes if each.request.tenant not in shares.held]
        brief = [each for each in decodes if each.request.tenant in shares.brief]
        if len(brief) <= shares.max_brief:
            return decodes
        brief.sort(key=lambda each: (each.slot - self._turn) % self._capacity)
        self._turn = brief[shares.max_brief - 1].slot + 1
        out = set(brief[shares.max_brief :])
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
        begun: Collection[Sequence],
        has_room: Callable[[Sequence], bool],
    ) -> list[Sequence]:
        """Whose tenants have no answer under way: those that are begun, and the next that waits."""
        answering = {each.request.tenant for each in running if each.num_generated}
        newcomers = [each for each in begun if each.request.tenant not in answering]
        first = self._queue.peek(large | answering)
        return [*newcomers, first] if first is not None and has_room(first) else newcomers

    def _goes_before(self, newcomer: Sequence, tenant: str) -> bool:
        return newcomer.request.tenant != tenant and self._queue.precedes(newcomer, tenant, self._lead)

    def _is_only_for(self, tenants: Collection[str], begun: Collection[Sequence]) -> bool:
        return self._queue.peek(tenants) is None and all(each.request.tenant in tenants for each in begun)
