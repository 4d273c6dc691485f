"""TGI's response headers, and one of our own: the prompt tokens that were cached."""

from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.interfaces import ModelInfo
from peregrine_router.settings import Settings

HEADERS = (
    "x-compute-type",
    "x-compute-characters",
    "x-compute-time",
    "x-total-time",
    "x-validation-time",
    "x-queue-time",
    "x-inference-time",
    "x-time-per-token",
    "x-prompt-tokens",
    "x-generated-tokens",
    "x-cached-tokens",
)
"""What pages of another origin may read."""


class AnswerHeaders:
    """Sizes and times of an answer; a stream's times are not known when it begins."""

    def __init__(self, settings: Settings, info: ModelInfo) -> None:
        device = "cpu" if info.model_device_type == "cpu" else "gpu"
        self._compute_type = settings.compute_type or f"{device}+optimized"

    def stream(self, lifecycle: RequestLifecycle) -> dict[str, str]:
        """Of a stream."""
        return {"x-compute-type": self._compute_type, "x-compute-characters": str(lifecycle.num_prompt_characters)}

    def whole(self, lifecycle: RequestLifecycle, num_tokens: int) -> dict[str, str]:
        """Of an answer of `num_tokens` generated tokens; times in milliseconds, but x-compute-time in seconds."""
        timings = lifecycle.timings
        return self.stream(lifecycle) | {
            "x-compute-time": str(timings.total),
            "x-total-time": _milliseconds(timings.total),
            "x-validation-time": _milliseconds(timings.validation),
            "x-queue-time": _milliseconds(timings.queue),
            "x-inference-time": _milliseconds(timings.inference),
            "x-time-per-token": _milliseconds(timings.inference / max(num_tokens, 1)),
            "x-prompt-tokens": str(lifecycle.num_prompt_tokens),
            "x-generated-tokens": str(num_tokens),
            "x-cached-tokens": str(lifecycle.num_cached_tokens),
        }


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
