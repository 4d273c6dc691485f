"""OpenAI's parameters in TGI's names, which is what is validated."""

from peregrine_router.admission.grammar_schema import GrammarSpec
from peregrine_router.admission.parameters import GenerateParameters
from peregrine_router.api.openai.schemas import OpenAiParameters
from peregrine_router.request import InvalidRequest


def generate_parameters(
    body: OpenAiParameters,
    *,
    max_tokens: int | None,
    top_n: int | None,
    has_prompt_logprobs: bool = False,
    grammar: GrammarSpec | None = None,
) -> GenerateParameters:
    """The same request; `grammar` goes before `response_format`. Raises InvalidRequest."""
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("`stream_options` is only allowed with `stream`")
    is_greedy = body.temperature == 0.0
    return GenerateParameters(
        do_sample=not is_greedy,
        temperature=None if is_greedy else body.temperature,
        top_p=body.top_p,
        top_k=body.top_k or None,
        min_p=body.min_p,
        typical_p=body.typical_p,
        repetition_penalty=body.repetition_penalty,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        logit_bias=body.logit_bias,
        watermark=body.watermark,
        max_new_tokens=max_tokens,
        min_tokens=body.min_tokens,
        stop=_stops(body),
        stop_token_ids=body.stop_token_ids,
        ignore_eos=body.ignore_eos,
        priority=body.priority,
        timeout=body.timeout,
        seed=None if body.seed is None else body.seed % 2**64,
        top_n_tokens=top_n,
        decoder_input_details=has_prompt_logprobs,
        grammar=grammar or body.response_format,
    )


def _stops(body: OpenAiParameters) -> list[str]:
    return [body.stop] if isinstance(body.stop, str) else body.stop or []
