"""Names and values of span attributes: the stable HTTP conventions, the GenAI conventions 0.1.0, and the
`gen_ai.latency.*` that vLLM and SGLang share. All are literals here: the GenAI names still change.

Of what clients send, only numbers and the head of the request are recorded, never a prompt, unless `content` is asked
for.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.datastructures import Headers

from peregrine_router.observability.observer import RequestRecord
from peregrine_router.request import FinishReason

Attributes = dict[str, str | bool | int | float | list[str]]
ERROR_TYPE = "error.type"
REQUEST_ID = "gen_ai.request.id"
IS_STREAM = "gen_ai.request.stream"
STATUS = "http.response.status_code"
ROUTE = "http.route"
PREEMPTIONS = "peregrine.preemptions"
PROVIDER = "peregrine"
FINISH_REASONS = {FinishReason.LENGTH: "length", FinishReason.EOS_TOKEN: "stop", FinishReason.STOP_SEQUENCE: "stop"}
MAX_HEADER_LENGTH = 256
"""Characters of what a client says of itself, or asks for: thousands of spans may wait to be sent."""
MAX_CONTENT_LENGTH = 16_384
"""Characters of a request's prompts, and of its answers, that are recorded, for the same reason."""
MAX_INT = 2**63 - 1
"""OTLP's largest integer. A batch with a larger one would be lost as a whole."""


def http_attributes(scope: Mapping[str, Any]) -> Attributes:
    """The head of a request. Without its query, in which some clients send keys."""
    attributes: Attributes = {
        "http.request.method": scope["method"],
        "url.path": scope["path"][:MAX_HEADER_LENGTH],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
    }
    if scope.get("server"):
        attributes["server.address"], attributes["server.port"] = scope["server"]
    if scope.get("client"):
        attributes["client.address"] = scope["client"][0]
    if agent := Headers(raw=scope["headers"]).get("user-agent"):
        attributes["user_agent.original"] = agent[:MAX_HEADER_LENGTH]
    return attributes


def operation_attributes(request: RequestRecord, model_id: str) -> Attributes:
    """Attributes of a generation that has just arrived."""
    return {
        "gen_ai.operation.name": request.operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model_id,
        REQUEST_ID: request.id,
    }


def parameter_attributes(request: RequestRecord) -> Attributes:
    """The sampling parameters of a validated request, without those that are off: each costs the event loop 5 us."""
    first = request.requests[0]
    sampling = first.sampling
    attributes: Attributes = {
        "gen_ai.request.max_tokens": first.max_new_tokens,
        "gen_ai.request.temperature": sampling.temperature if sampling.do_sample else 0.0,
        "gen_ai.usage.input_tokens": request.num_prompt_tokens,
    }
    for name, value, off in (
        ("top_k", sampling.top_k, 0),
        ("top_p", sampling.top_p, 1.0),
        ("frequency_penalty", sampling.frequency_penalty, 0.0),
        ("presence_penalty", sampling.presence_penalty, 0.0),
    ):
        if value != off:
            attributes[f"gen_ai.request.{name}"] = value
    if sampling.do_sample and sampling.seed <= MAX_INT:
        attributes["gen_ai.request.seed"] = sampling.seed
    if request.num_choices != 1:
        attributes["gen_ai.request.choice.count"] = request.num_choices
    return attributes


def result_attributes(request: RequestRecord) -> Attributes:
    """Usage, finish reasons and latencies of a request that has ended."""
    assert request.ended_at is not None
    timings, first = request.timings(request.ended_at), request.first_token_at
    attributes: Attributes = {"gen_ai.latency.e2e": timings.total}
    if request.queued_at is not None:
        attributes["gen_ai.latency.time_in_queue"] = timings.queue
    if first is not None and request.scheduled_at is not None:
        attributes |= {
            "gen_ai.latency.time_to_first_token": first - request.arrived_at,
            "gen_ai.response.time_to_first_chunk": first - request.arrived_at,
            "gen_ai.latency.time_in_model_prefill": first - request.scheduled_at,
            "gen_ai.latency.time_in_model_decode": request.ended_at - first,
            "gen_ai.latency.time_in_model_inference": timings.inference,
        }
    if request.finished:
        attributes |= {
            "gen_ai.response.finish_reasons": [FINISH_REASONS[each.reason] for each in request.finished],
            "gen_ai.usage.output_tokens": request.num_generated_tokens,
            "gen_ai.usage.cache_read.input_tokens": request.num_cached_tokens,
        }
    return attributes


def content_attributes(request: RequestRecord) -> Attributes:
    """Prompts and generated texts, as the conventions' messages; what is too long is cut."""
    return {
        "gen_ai.input.messages": _messages("user", request.prompts),
        "gen_ai.output.messages": _messages("assistant", [each.generated_text for each in request.finished]),
    }


def _messages(role: str, texts: Iterable[str]) -> str:
    left, messages = MAX_CONTENT_LENGTH, []
    for text in texts:
        messages.append({"role": role, "parts": [{"type": "text", "content": text[:left]}]})
        left -= len(text)
        if left <= 0:
            break
    return json.dumps(messages)
