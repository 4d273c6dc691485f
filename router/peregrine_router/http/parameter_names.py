"""Names of parameters in messages: rules speak of TGI's, a client reads those of its route."""

import re
from collections.abc import Mapping

OPENAI_NAMES: Mapping[str, str] = {
    "max_new_tokens": "max_tokens",
    "top_n_tokens": "top_logprobs",
    "grammar": "response_format",
}
"""TGI's parameter -> OpenAI's name of it."""
RESPONSES_PATH = "/v1/responses"
RESPONSES_NAMES: Mapping[str, str] = {
    "max_new_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "top_n_tokens": "top_logprobs",
    "grammar": "text.format",
    "response_format": "text.format",
    "messages": "input",
}
"""TGI's parameter, or that of chat completions -> the name of it in a request for a response."""
_QUOTED_NAME = re.compile(r"`(\w+)(?=[`.])")


def names_of(path: str) -> Mapping[str, str]:
    """The names of one of OpenAI's routes."""
    return RESPONSES_NAMES if path.startswith(RESPONSES_PATH) else OPENAI_NAMES


def renamed(text: str, names: Mapping[str, str]) -> str:
    """The message with the names in backticks replaced."""
    return _QUOTED_NAME.sub(lambda name: f"`{names.get(name[1], name[1])}", text)


def first_name(text: str) -> str | None:
    """The first name in backticks."""
    found = _QUOTED_NAME.search(text)
    return found[1] if found else None
