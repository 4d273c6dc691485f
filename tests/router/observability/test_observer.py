"""An observer that is passed to the app, as one for tracing would be."""

import pytest

from fakes import FakeEngine, serve
from peregrine_router.observability.observer import RequestObserver, RequestObservers, RequestRecord, Timings
from peregrine_router.request import GenerationFailed


class RecordingObserver(RequestObserver):
    """Writes down the phases of all requests, and keeps what is known of the last."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.num_tokens = 0
        self.request: RequestRecord | None = None
        self.error: Exception | None = None

    def arrived(self, request: RequestRecord) -> None:
        self.request = request
        self.phases.append("arrived")

    def validated(self, request: RequestRecord) -> None:
        assert request.requests
        assert request.queued_at is None
        self.phases.append("validated")

    def queued(self, request: RequestRecord) -> None:
        self.phases.append("queued")

    def first_token(self, request: RequestRecord, now: float) -> None:
        assert request.scheduled_at is not None
        assert request.scheduled_at <= now
        self.phases.append("first token")

    def tokens(self, request: RequestRecord, count: int, seconds: float | None) -> None:
        assert (seconds is None) == (self.num_tokens == 0)
        self.num_tokens += count

    def answered(self, request: RequestRecord) -> None:
        self.phases.append("answered")

    def failed(self, request: RequestRecord, error: Exception, label: str) -> None:
        self.error = error
        self.phases.append(f"failed: {label}")


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_an_observer_sees_the_phases_of_a_request(engine: FakeEngine, path: str) -> None:
    """Each phase once and in order, every token, and a record whose times ascend and whose sizes are the answer's."""
    observer = RecordingObserver()
    with serve(engine, observers=[observer]) as server:
        answer = server.generate(path=path, max_new_tokens=3)
    assert observer.phases == ["arrived", "validated", "queued", "first token", "answered"]
    record = observer.request
    assert record is not None
    assert record.id == answer.headers["x-request-id"]
    assert (observer.num_tokens, record.num_generated_tokens) == (3, 3)
    assert record.num_prompt_tokens == len(engine.requests[0].prompt_ids)
    times = [record.arrived_at, record.queued_at, record.scheduled_at, record.ended_at]
    assert times == sorted(time for time in times if time is not None)


def test_an_observer_sees_where_a_request_fails(engine: FakeEngine) -> None:
    """The phases up to the error, then the error itself with its label; a refused request is never queued."""
    engine.error_at, engine.error = 2, GenerationFailed("the shard is gone")
    observer = RecordingObserver()
    with serve(engine, observers=[observer]) as server:
        server.generate()
        assert observer.phases == ["arrived", "validated", "queued", "first token", "failed: generation"]
        assert observer.error is engine.error
        observer.phases.clear()
        server.generate(temperature=0)
    assert observer.phases == ["arrived", "failed: validation"]
    assert observer.request is not None
    assert observer.request.requests == ()


def test_tokens_go_straight_to_the_only_observer_that_counts_them() -> None:
    """The call for every event costs one observer's work; with two, both are called."""
    first, second = RecordingObserver(), RecordingObserver()
    assert RequestObservers((RequestObserver(), first)).tokens == first.tokens
    RequestObservers((first, second)).tokens(RequestRecord("a", 0.0), 2, None)
    assert (first.num_tokens, second.num_tokens) == (2, 2)


def test_phases_that_have_not_begun_take_no_time() -> None:
    """A request that ends early spent its time in the phases that it reached."""
    record = RequestRecord("a", arrived_at=1.0)
    assert record.timings(4.0) == Timings(total=3.0, validation=3.0, queue=0.0, inference=0.0)
    record.queued_at = 2.0
    assert record.timings(4.0) == Timings(total=3.0, validation=1.0, queue=2.0, inference=0.0)
    record.scheduled_at = 3.5
    assert record.timings(4.0) == Timings(total=3.0, validation=1.0, queue=1.5, inference=0.5)
