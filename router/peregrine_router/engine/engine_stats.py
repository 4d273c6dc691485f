"""The engine's statistics, as metrics show them."""

from collections import Counter

from peregrine_router.interfaces import EngineStats
from peregrine_router.scheduling.scheduler import Scheduler


def engine_stats(scheduler: Scheduler, step_age: float) -> EngineStats:
    """The gauges and counters of this moment. `step_age`: as in `EngineStats`."""
    pool, speculation, totals = scheduler.pool, scheduler.speculation, scheduler.totals
    waiting = Counter(sequence.request.tenant for sequence in scheduler.waiting_sequences())
    return EngineStats(
        queue_size=scheduler.num_waiting,
        batch_size=len(scheduler.running),
        kv_blocks_used=pool.num_used,
        kv_blocks_cached=pool.num_idle,
        kv_blocks_total=pool.num_blocks,
        step_age=step_age,
        waiting_by_tenant=waiting,
        running_by_tenant=Counter(sequence.request.tenant for sequence in scheduler.running),
        preemptions=scheduler.num_preemptions,
        evictions=pool.num_evictions,
        prompt_tokens=scheduler.prefixes.num_prompt_tokens,
        cached_tokens=scheduler.prefixes.num_cached_tokens,
        draft_tokens=speculation.num_draft_tokens,
        accepted_tokens=speculation.num_accepted,
        generated_tokens=scheduler.num_generated,
        steps=totals.steps,
        step_tokens=totals.tokens,
        budget_tokens=totals.budget,
        context_tokens=totals.context,
    )
