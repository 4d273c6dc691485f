"""What tenants with more than their share of the requests leave to others: whole steps, and steps that are short.

A request that comes waits for the step that runs and, now and then, for one that is sent already; then its prompt is
computed beside the answers of others, in pieces. A flood makes all of that long. So a tenant with more requests than
its share, whether they run or wait, stays out of a step that computes the prompt of another's first answer, but never
of two in turn; and while others may come, its own steps are short: its answers take turns, and its prompts get what is
left. Short steps cost it a little throughput. A tenant that is alone is never slowed.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from operator import attrgetter
from typing import NamedTuple

from peregrine_router.fairness import FairQueue
from peregrine_router.sequence import Sequence

_last_step = attrgetter("last_step")


class Shares(NamedTuple):
    """What a step leaves out; by default nothing."""

    held: Collection[str] = ()
    """Tenants that leave the whole step to the first token of another."""
    brief: Collection[str] = ()
    """Tenants whose part of the step is short."""

    def decodes(self, decodes: list[Sequence], most: int) -> list[Sequence]:
        """Without those that are held; of those that are to be brief the `most` whose last step is longest ago."""
        if self.held:
            decodes = [each for each in decodes if each.request.tenant not in self.held]
        brief = [each for each in decodes if each.request.tenant in self.brief] if self.brief else []
        if len(brief) <= most:
            return decodes
        out = set(sorted(brief, key=_last_step)[most:])
        return [each for each in decodes if each not in out]


class Sharing:
    """Decides it, step by step."""

    def __init__(self, queue: FairQueue[Sequence], capacity: int, lead: int) -> None:
        """`capacity` sequences run at most. A tenant whose first answer others are held for was served at most `lead`
        weighted tokens more than they."""
        self._queue = queue
        self._capacity = capacity
        self._lead = lead
        self._last = Shares()

    def shares(
        self, running: Collection[Sequence], begun: Collection[Sequence], has_room: Callable[[Sequence], bool]
    ) -> Shares:
        """Of the next step. `begun` are those whose prompts are being computed; `has_room` tells whether one that waits
        can begin."""
        if self._queue.num_tenants < 2:
            return Shares()
        large = self.over_share(Counter(each.request.tenant for each in running))
        if large:
            newcomers = self._newcomers(large, running, begun, has_room)
            held = {tenant for tenant in large if any(self._goes_before(each, tenant) for each in newcomers)}
            brief = {tenant for tenant in large if self._queue.expects_another(tenant)}
            self._last = Shares(held.difference(self._last.held), brief)
        else:
            self._last = Shares()
        return self._last

    def over_share(self, running: Mapping[str, int]) -> set[str]:
        """Tenants with more requests than an equal part of the capacity; `running` are those of each, and those that
        wait count as well: where prompts are long, a flood never runs all at once."""
        share = self._capacity // max(len(running), 2)
        return {tenant for tenant, count in running.items() if count + self._queue.num_waiting(tenant) > share}

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
