"""Limits on a request's parameters: where TGI's defaults and OpenAI's differ, and the option that sets a limit."""

from dataclasses import dataclass

from peregrine_router.settings import Settings


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Limits of one family of routes; the fields are named after the options that set them for both."""

    max_best_of: int
    """Sequences of one prompt."""
    max_top_n_tokens: int
    max_client_batch_size: int
    """Prompts of one request."""


TGI_LIMITS = ApiLimits(max_best_of=2, max_top_n_tokens=5, max_client_batch_size=4)
"""Defaults of TGI's launcher."""
OPENAI_LIMITS = ApiLimits(max_best_of=128, max_top_n_tokens=20, max_client_batch_size=2048)
"""OpenAI's `n` and `top_logprobs` (API reference), and the length of its array of inputs."""


def api_limits(settings: Settings, *, is_tgi: bool) -> ApiLimits:
    """The limits of TGI's routes or of OpenAI's: the operator's where set."""
    off = TGI_LIMITS if is_tgi else OPENAI_LIMITS
    return ApiLimits(
        max_best_of=_default(settings.max_best_of, off.max_best_of),
        max_top_n_tokens=_default(settings.max_top_n_tokens, off.max_top_n_tokens),
        max_client_batch_size=_default(settings.max_client_batch_size, off.max_client_batch_size),
    )


def set_by(name: str) -> str:
    """The end of a message that refuses a request because of a limit: the option that sets it."""
    return f"; the operator sets this by --{name.replace('_', '-')}"


def _default(value: int | None, default: int) -> int:
    return default if value is None else value
