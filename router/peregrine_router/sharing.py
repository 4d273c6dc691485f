"""What tenants with more than their share of the requests leave to others: whole steps, and steps that are short.

A request that comes waits for the step that runs and, now and then, for one that is sent already; then its prompt is
computed beside the answers of others, in pieces. A flood makes all of it long. So a tenant with more requests than its
share, whether they run or wait, stays out of steps while another computes the prompt of its first answer; and while
others may come, its own steps are short: its answers take turns, and what is left goes to its prompts. All of its
answers go on, each as often as the others; a step that is shorter costs a little throughput. A tenant that is alone
is never slowed.
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


def shares(
    queue: FairQueue[Sequence],
    running: Collection[Sequence],
    begun: list[Sequence],
    capacity: int,
    has_room: Callable[[Sequence], bool],
) -> Shares:
    """Of a step with these sequences running, `begun` those whose prompts are not computed, `capacity` at most.

    `has_room` tells whether a sequence that waits can begin.
    """
    if queue.num_tenants < 2:
        return Shares()
    large = over_share(queue, Counter(each.request.tenant for each in running), capacity)
    if not large:
        return Shares()
    answering = {each.request.tenant for each in running if each.num_generated}
    newcomers = [each for each in begun if each.request.tenant not in answering]
    if queue and (first := queue.peek()).request.tenant not in answering and has_room(first):
        newcomers.append(first)
    held = {tenant for tenant in large if any(_holds(queue, each, tenant) for each in newcomers)}
    return Shares(held, {tenant for tenant in large if queue.expects_another(tenant)})


def over_share(queue: FairQueue[Sequence], running: Mapping[str, int], capacity: int) -> set[str]:
    """Tenants with more requests than an equal part of `capacity`; `running` are those of each, and those that wait
    count as well: where prompts are long, a flood is never computed all at once."""
    share = capacity // max(len(running), 2)
    return {tenant for tenant, count in running.items() if count + queue.num_waiting(tenant) > share}


def _holds(queue: FairQueue[Sequence], newcomer: Sequence, tenant: str) -> bool:
    return newcomer.request.tenant != tenant and queue.precedes(newcomer, tenant)
