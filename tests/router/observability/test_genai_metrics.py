"""The GenAI conventions' histograms."""

from chats import TEMPLATE, chat
from fakes import EOS, FakeEngine, Server, serve
from peregrine_router.observability.genai_metrics import DURATION_SECONDS
from peregrine_router.text.chat_template import Chat

LABELS = 'gen_ai_provider_name="peregrine",gen_ai_request_model="peregrine/test"'


def series(name: str, operation: str, error: str = "") -> str:
    before = f'error_type="{error}",' if error else ""
    return f'gen_ai_server_{name}{{{before}gen_ai_operation_name="{operation}",{LABELS}}}'


def test_an_answer_is_observed_by_its_operation(engine: FakeEngine) -> None:
    """A chat and a completion each have a duration, a time to the first token, and a time per token after it."""
    with serve(engine, chat=Chat(engine.tokenizer, TEMPLATE, {"eos_token": EOS})) as server:
        server.generate(max_new_tokens=3)
        chat(server, max_tokens=3)
        metrics = server.metrics()
    for name in ("request_duration", "time_to_first_token", "time_per_output_token"):
        for operation in ("text_completion", "chat"):
            assert metrics[series(f"{name}_seconds_count", operation)] == 1
            assert metrics[series(f"{name}_seconds_sum", operation)] > 0


def test_one_token_has_no_time_per_token(server: Server) -> None:
    """The first token's time is no time between tokens."""
    server.generate(max_new_tokens=1)
    metrics = server.metrics()
    assert metrics[series("time_to_first_token_seconds_count", "text_completion")] == 1
    assert metrics[series("time_per_output_token_seconds_count", "text_completion")] == 0


def test_a_failure_has_its_error_type(engine: FakeEngine) -> None:
    """Its duration counts apart from those of answers, under the label of tgi_request_failure."""
    engine.error_at = 2
    with serve(engine) as server:
        server.generate(max_new_tokens=3)
        server.generate(temperature=0)
        metrics = server.metrics()
    assert metrics[series("request_duration_seconds_count", "text_completion", "validation")] == 1
    assert metrics[series("request_duration_seconds_count", "text_completion", "internal")] == 1
    assert metrics[series("request_duration_seconds_count", "text_completion")] == 0


def test_the_buckets_are_the_conventions() -> None:
    """Powers of two of 10 ms."""
    assert DURATION_SECONDS[:3] == (0.01, 0.02, 0.04)
    assert DURATION_SECONDS[-1] == 81.92
