"""Response headers of generated text: TGI's, `x-cached-tokens` and `x-peregrine-warning`."""

from collections.abc import Sequence

from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.interfaces import ModelInfo
from peregrine_router.settings import Settings

WARNING = "x-peregrine-warning"
MAX_WARNINGS = 8
"""Keywords that a warning names. With the cut of each it stays under 2 kB: proxies limit headers to 4 or 8 kB."""
MAX_WARNING_LENGTH = 200
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
    WARNING,
)
"""Headers that CORS exposes to pages of other origins."""


class ResponseHeaders:
    """Headers with the sizes and times of an answer. A stream has no times: its headers are sent before."""

    def __init__(self, settings: Settings, info: ModelInfo) -> None:
        device = "cpu" if info.model_device_type == "cpu" else "gpu"
        self._compute_type = settings.compute_type or f"{device}+optimized"

    def stream(self, lifecycle: RequestLifecycle) -> dict[str, str]:
        """Headers of a stream."""
        headers = {"x-compute-type": self._compute_type, "x-compute-characters": str(lifecycle.num_prompt_characters)}
        return headers | warnings(lifecycle)

    def whole(self, lifecycle: RequestLifecycle, num_tokens: int) -> dict[str, str]:
        """Headers of a whole answer of `num_tokens` generated tokens; milliseconds, but x-compute-time in seconds."""
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


def warnings(lifecycle: RequestLifecycle) -> dict[str, str]:
    """Header with the keywords of a schema that are not enforced; none if all are."""
    dropped = lifecycle.dropped_keywords
    return {WARNING: dropped_warning(dropped)} if dropped else {}


def dropped_warning(keywords: Sequence[str]) -> str:
    """Says in printable ASCII which keywords of a schema a grammar does not hold."""
    shown = [ascii(keyword)[1:-1][:MAX_WARNING_LENGTH] for keyword in keywords[:MAX_WARNINGS]]
    more = f" and {len(keywords) - MAX_WARNINGS} more" if len(keywords) > MAX_WARNINGS else ""
    return f"not enforced: {', '.join(shown)}{more}"


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
