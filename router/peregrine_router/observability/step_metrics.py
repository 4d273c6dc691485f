"""TGI's tgi_batch_* series, and how many tokens speculation gains."""

from peregrine_router.interfaces import StepObserver
from peregrine_router.observability.metrics import Metrics
from peregrine_server.protocol import Step, StepResult, unpack


class StepMetrics(StepObserver):
    """Counts and times steps. One with any part of a prompt in it counts as prefill, as TGI's mixed batches do."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def sent(self, step: Step) -> None:
        """Counts a step and the sequences that join it."""
        size = _size(step)
        self._metrics.observe_step_sent(_method(step), size, len(step.new), has_others=size > len(step.new))

    def answered(self, step: Step, result: StepResult, seconds: float) -> None:
        """Records the time of a step, and its tokens if it speculated."""
        self._metrics.observe_step_done(_method(step), seconds)
        if step.max_draft_tokens:
            self._metrics.observe_draft_tokens(unpack(result.slots))

    def failed(self, step: Step) -> None:
        """Counts a failure."""
        self._metrics.batch_failure.labels(_method(step)).inc()


def _size(step: Step) -> int:
    """Sequences in a step."""
    return len(step.slots) // 4  # int32


def _method(step: Step) -> str:
    return "decode" if _size(step) == step.num_decodes else "prefill"
