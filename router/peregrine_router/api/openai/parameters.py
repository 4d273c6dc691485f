"""Translation of OpenAI's parameters into `GenerateParameters`."""

from collections.abc import Mapping
from typing import Any

from peregrine_router.admission.generate_parameters import CommonParameters, GenerateParameters
from peregrine_router.admission.grammar_schema import GrammarSpec
from peregrine_router.api.openai.schemas import OpenAiParameters
from peregrine_router.request import InvalidRequest

OFF_VALUES: Mapping[str, tuple[int, ...]] = {"temperature": (0,), "top_p": (0,), "top_k": (0, -1)}
"""Values by which clients of OpenAI's and of vLLM's routes ask for greedy decoding and for "off"; TGI's rules refuse
them."""
GREEDY_AT_ZERO = ("temperature", "top_p")


def generate_parameters(
    body: OpenAiParameters,
    *,
    max_tokens: int | None,
    top_n: int | None,
    defaults: Mapping[str, float],
    has_prompt_logprobs: bool = False,
    grammar: GrammarSpec | None = None,
) -> GenerateParameters:
    """Translates a request; `grammar` takes precedence over `response_format`. Raises InvalidRequest.

    `defaults`: `ModelInfo.sampling_defaults`, for what the request leaves out.
    """
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("`stream_options` is only allowed with `stream`")
    given = {name: getattr(body, name) for name in CommonParameters.model_fields}
    common: dict[str, Any] = {name: defaults.get(name) if value is None else value for name, value in given.items()}
    return GenerateParameters(
        **common | {name: None for name, values in OFF_VALUES.items() if common[name] in values},
        do_sample=all(common[name] != 0.0 for name in GREEDY_AT_ZERO),
        max_new_tokens=max_tokens,
        stop=_stops(body),
        seed=None if body.seed is None else body.seed % 2**64,
        top_n_tokens=top_n,
        decoder_input_details=has_prompt_logprobs,
        grammar=grammar or body.response_format,
    )


def _stops(body: OpenAiParameters) -> list[str]:
    return [body.stop] if isinstance(body.stop, str) else body.stop or []
