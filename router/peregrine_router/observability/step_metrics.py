"""The metrics of the shards' steps: TGI's tgi_batch_* series, the router's part, the tokens that speculation gains."""

import numpy as np

from peregrine_router.interfaces import StepObserver
from peregrine_router.observability.metrics import Metrics
from peregrine_server.protocol import Step, StepResult, unpack


class StepMetrics(StepObserver):
    """Counts and times steps. A step with any part of a prompt in it counts as prefill, as TGI's mixed batches do."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def sent(self, step: Step) -> None:
        """Counts the step, and the sequences in it that are new to the shards."""
        metrics, num_new = self._metrics, len(step.new)
        metrics.steps_sent[_method(step)].inc()
        if num_new:
            metrics.batch_next_size.observe(num_new)
            if _num_sequences(step) > num_new:
                metrics.batch_concat.labels("chunking").inc()

    def answered(self, step: Step, result: StepResult, seconds: float | None) -> None:
        """Observes the step's duration and, if drafts were allowed in it, how many of each sequence were accepted."""
        metrics, method = self._metrics, _method(step)
        metrics.steps_answered[method].inc()
        if seconds is not None:
            metrics.step_seconds[method].observe(seconds)
        if step.max_draft_tokens:
            # A result names a sequence's slot once for each of its tokens: one sampled, the others accepted drafts.
            for num_tokens in np.unique(unpack(result.slots), return_counts=True)[1].tolist():
                metrics.skipped_tokens.observe(num_tokens - 1)

    def failed(self, step: Step) -> None:
        """Counts the failure."""
        self._metrics.steps_failed[_method(step)].inc()

    def spent(self, phase: str, seconds: float) -> None:
        """Observes the router's own part of a step."""
        self._metrics.phase_seconds[phase].observe(seconds)


def _num_sequences(step: Step) -> int:
    return len(step.slots) // 4  # int32


def _method(step: Step) -> str:
    return "decode" if _num_sequences(step) == step.num_decodes else "prefill"
