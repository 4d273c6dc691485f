"""Times the steps of the shards from outside, for TGI's tgi_batch_* series and for deadlines."""

import time
from collections import deque
from typing import NamedTuple

from peregrine_router.engine.step_times import StepTimes, num_tokens
from peregrine_router.interfaces import Shards
from peregrine_router.observability.metrics import Metrics
from peregrine_router.scheduling.draft_cost import VerificationCostModel
from peregrine_server.protocol import Step, StepResult, unpack


class _Sent(NamedTuple):
    at: float
    method: str
    size: int
    num_tokens: int
    speculates: bool


class TimedShards:
    """Passes everything on. A step with any part of a prompt in it counts as prefill, as TGI's mixed batches do.

    Steps without work, which only ask whether the shards are there, are not counted.
    """

    def __init__(self, shards: Shards, metrics: Metrics, draft_cost: VerificationCostModel | None = None) -> None:
        """`draft_cost`: is told how long steps of decodes took."""
        self.times = StepTimes()
        self._shards = shards
        self._metrics = metrics
        self._guess_cost = draft_cost
        self._sent: deque[_Sent | None] = deque()
        self._idle_since = 0.0

    @property
    def failure(self) -> Exception | None:
        """Set once a shard has failed or died."""
        return self._shards.failure

    async def send(self, step: Step) -> None:
        """Sends a step."""
        size = len(step.slots) // 4  # int32
        method = "decode" if size == step.num_decodes else "prefill"
        sent = _Sent(time.monotonic(), method, size, num_tokens(step), step.speculate > 0)
        self._sent.append(sent if size else None)
        if size:
            self._metrics.observe_step_sent(method, size, len(step.new), has_others=size > len(step.new))
        await self._shards.send(step)

    async def receive(self) -> StepResult:
        """The answer to the oldest step in flight."""
        try:
            result = await self._shards.receive()
        except Exception:
            if self._sent and (sent := self._sent[0]):
                self._metrics.batch_failure.labels(sent.method).inc()
            raise
        now, sent = time.monotonic(), self._sent.popleft()
        if sent is not None:
            # With two steps in flight the second one starts when the first ends.
            seconds = now - max(sent.at, self._idle_since)
            self._metrics.observe_step_done(sent.method, seconds)
            self.times.observe(sent.num_tokens, seconds)
            if self._guess_cost is not None and sent.method == "decode":
                self._guess_cost.observe(sent.size, result.num_draft_tokens, seconds)
            if sent.speculates:
                self._metrics.observe_draft_tokens(unpack(result.slots))
        self._idle_since = now
        return result
