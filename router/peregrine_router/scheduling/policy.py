"""Scheduling policy: which request is next, how large a step may be, and which running sequence is preempted.

A policy only decides; the scheduler alone moves sequences, slots and blocks. Every request ends as long as the oldest
running sequence advances, so a policy neither pauses nor preempts that one.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol

from peregrine_router.scheduling.fair_queue import FairQueue
from peregrine_router.scheduling.sequence import Sequence
from peregrine_router.scheduling.step_limits import MIN_CHUNK, StepBudget, StepLimits, TenantThrottle


class WaitingQueue(Protocol):
    """The waiting sequences, and which of them is next."""

    def __len__(self) -> int: ...

    def __contains__(self, item: Sequence) -> bool: ...

    def __iter__(self) -> Iterator[Sequence]: ...

    def append(self, item: Sequence, num_tokens: int) -> None:
        """Queues a new request that has `num_tokens` to compute before its first output token. May set its
        `virtual_deadline`: prompts that are being computed take turns by it, the smallest first."""

    def appendleft(self, item: Sequence) -> None:
        """Queues a preempted sequence, which is to run again before its tenant's other requests."""

    def peek(self, exclude: Collection[str] = ()) -> Sequence | None:
        """The next sequence that is not of an excluded tenant; None if there is none."""

    def take(self, item: Sequence) -> None:
        """Removes a queued sequence because it starts to run."""

    def remove(self, item: Sequence) -> None:
        """Removes a queued sequence because it was cancelled."""

    def replace(self, item: Sequence, successor: Sequence) -> None:
        """`successor`, of the same tenant, takes the place of a queued sequence."""

    def charge_outputs(self, tenants: Iterable[str]) -> None:
        """Called after each step with the tenant of every token generated in it."""

    def check_integrity(self) -> None:
        """Raises AssertionError unless the queue is consistent."""


class Policy(Protocol):
    """The decisions that the scheduler asks for."""

    @property
    def waiting(self) -> WaitingQueue:
        """The queue of requests; the same object at every call."""

    def limits(
        self,
        running: list[Sequence],
        prefilling: list[Sequence],
        has_room: Callable[[Sequence], bool],
        budget: StepBudget,
    ) -> StepLimits:
        """The limits of the next step. `prefilling`: the running sequences whose prompts are being computed.
        `has_room`: whether there are slots and blocks for a waiting sequence."""

    def select_decodes(self, decodes: list[Sequence], limits: StepLimits) -> list[Sequence]:
        """The subset of `decodes` that takes part in the step, in the same order."""

    def overtakes(self, newcomer: Sequence, prefilling: Sequence, running: list[Sequence]) -> bool:
        """Whether a waiting sequence starts before a prompt that is being computed continues."""

    def may_preempt(self, newcomer: Sequence, running: list[Sequence]) -> bool:
        """Whether running sequences may be preempted to make room for the next waiting one."""

    def victim(self, candidates: list[Sequence], running: list[Sequence]) -> Sequence | None:
        """The candidate to preempt; None to preempt none. Both are in order of admission. Where a running sequence
        cannot grow without a victim, None preempts the last candidate."""


class FairPolicy:
    """The default: tenants are served equally by virtual token counters, those over their share are throttled, and the
    newest running sequence is preempted first, but never a tenant's only one for another tenant's."""

    def __init__(
        self,
        max_batch_size: int,
        lead: int,
        *,
        min_chunk: int = MIN_CHUNK,
        waiting: FairQueue[Sequence] | None = None,
    ) -> None:
        """`lead`: a newcomer's prefill may pause another tenant's decodes only if the newcomer has received at most
        `lead` more virtual tokens than that tenant; a full step's tokens, as a rule. `min_chunk`: as `MIN_CHUNK`."""
        self.waiting = FairQueue[Sequence]() if waiting is None else waiting
        self._throttle = TenantThrottle(self.waiting, max_batch_size, lead, min_chunk)

    def limits(
        self,
        running: list[Sequence],
        prefilling: list[Sequence],
        has_room: Callable[[Sequence], bool],
        budget: StepBudget,
    ) -> StepLimits:
        """As `Policy.limits`: see `TenantThrottle`."""
        return self._throttle.limits(running, prefilling, has_room, budget.max_mixed_tokens)

    def select_decodes(self, decodes: list[Sequence], limits: StepLimits) -> list[Sequence]:
        """All decodes but those of paused tenants; decodes of throttled tenants take turns."""
        if not (limits.throttled_tenants or limits.paused_tenants):
            return decodes
        return self._throttle.decodes(decodes, limits)

    def overtakes(self, newcomer: Sequence, prefilling: Sequence, running: list[Sequence]) -> bool:
        """True if the newcomer's deadline is earlier, and its tenant is the same or runs fewer sequences: otherwise a
        flood of short prompts would keep another tenant's long prompt from completion."""
        if newcomer.virtual_deadline >= prefilling.virtual_deadline:
            return False
        ours, theirs = newcomer.request.tenant, prefilling.request.tenant
        tenants = [sequence.request.tenant for sequence in running] if ours != theirs else []
        return ours == theirs or tenants.count(ours) < tenants.count(theirs)

    def may_preempt(self, newcomer: Sequence, running: list[Sequence]) -> bool:
        """True if the newcomer's tenant runs nothing: other tenants must not keep it out by being many."""
        return not any(each.request.tenant == newcomer.request.tenant for each in running)

    def victim(self, candidates: list[Sequence], running: list[Sequence]) -> Sequence | None:
        """The newest candidate whose tenant runs other sequences as well, so that it is not the oldest of all."""
        counts = Counter(sequence.request.tenant for sequence in running)
        return next((each for each in reversed(candidates) if counts[each.request.tenant] > 1), None)
