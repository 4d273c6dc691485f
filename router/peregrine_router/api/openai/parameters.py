"""Translation of OpenAI's parameters into `GenerateParameters`."""

from peregrine_router.admission.generate_parameters import CommonParameters, GenerateParameters
from peregrine_router.admission.grammar_schema import GrammarSpec
from peregrine_router.api.openai.schemas import OpenAiParameters
from peregrine_router.request import InvalidRequest

ZERO_IS_OFF = ("temperature", "top_k")
"""Parameters that OpenAI's clients set to 0 for greedy decoding and for "off"; TGI's rules refuse 0."""


def generate_parameters(
    body: OpenAiParameters,
    *,
    max_tokens: int | None,
    top_n: int | None,
    has_prompt_logprobs: bool = False,
    grammar: GrammarSpec | None = None,
) -> GenerateParameters:
    """Translates a request; `grammar` takes precedence over `response_format`. Raises InvalidRequest."""
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("`stream_options` is only allowed with `stream`")
    common = {name: getattr(body, name) for name in CommonParameters.model_fields}
    return GenerateParameters(
        **common | {name: common[name] or None for name in ZERO_IS_OFF},
        do_sample=body.temperature != 0.0,
        max_new_tokens=max_tokens,
        stop=_stops(body),
        seed=None if body.seed is None else body.seed % 2**64,
        top_n_tokens=top_n,
        decoder_input_details=has_prompt_logprobs,
        grammar=grammar or body.response_format,
    )


def _stops(body: OpenAiParameters) -> list[str]:
    return [body.stop] if isinstance(body.stop, str) else body.stop or []
