"""The worker's loop: a step that has arrived is launched before the running one's tokens are waited for."""

from collections import deque
from typing import Any

from peregrine_server.protocol import Shutdown, Step, StepResult
from peregrine_server.worker import describe, run_steps


class FakeDevice:
    """A runner and a link in one, which record the order of launches and answers."""

    def __init__(self, messages: list[Any], num_polls: int) -> None:
        """A step is done when it has been polled `num_polls` times."""
        self.messages = deque(messages)
        self.num_polls = num_polls
        self.events: list[str] = []

    def receive(self) -> Any:
        message = self.messages.popleft()
        assert message is not None, "waited for a message while a step was unanswered"
        return message

    def poll(self) -> Any:
        return self.messages.popleft()

    def launch(self, step: Step) -> "FakePendingStep":
        self.events.append(f"launch {step.id}")
        return FakePendingStep(self, step.id)

    def waits_in(self, step: Step) -> bool:
        return step.max_draft_tokens > 0

    def send(self, result: StepResult) -> None:
        self.events.append(f"send {result.id}")


class FakePendingStep:
    def __init__(self, device: FakeDevice, step_id: int) -> None:
        self._num_polls = device.num_polls
        self._id = step_id

    @property
    def is_done(self) -> bool:
        self._num_polls -= 1
        return self._num_polls < 0

    def result(self) -> StepResult:
        return StepResult(self._id, b"", b"", b"")


def events(messages: list[Any], num_polls: int, rank: int = 0) -> list[str]:
    device = FakeDevice(messages, num_polls)
    run_steps(device, rank, device)  # type: ignore[arg-type]
    return device.events


def test_the_next_step_is_launched_before_the_running_one_is_answered() -> None:
    """On an asynchronous device, if the next step has arrived."""
    assert events([Step(1), Step(2), None, Shutdown()], num_polls=1) == ["launch 1", "launch 2", "send 1", "send 2"]


def test_a_step_that_arrives_while_another_runs_is_launched_at_once() -> None:
    """Otherwise the device would be idle between the two: the router sends it only after the previous answer."""
    messages = [Step(1), Step(2), None, Step(3), None, None, Shutdown()]
    assert events(messages, num_polls=2) == ["launch 1", "launch 2", "send 1", "launch 3", "send 2", "send 3"]


def test_a_step_is_answered_when_no_other_has_arrived() -> None:
    """Its tokens do not wait for the next message."""
    assert events([Step(1), None, Step(2), None, Shutdown()], num_polls=1) == [
        "launch 1",
        "send 1",
        "launch 2",
        "send 2",
    ]


def test_a_step_that_is_done_is_answered_before_the_next_is_launched() -> None:
    """On a CPU a step is done once launched: the next one must not delay its tokens."""
    assert events([Step(1), Step(2), Shutdown()], num_polls=0) == ["launch 1", "send 1", "launch 2", "send 2"]


def test_a_step_that_waits_for_the_running_one_is_launched_after_its_answer() -> None:
    """A step that may propose draft tokens waits for the running step's, whose answer it must not delay."""
    messages = [Step(1), Step(2, max_draft_tokens=4), None, Shutdown()]
    assert events(messages, num_polls=1) == ["launch 1", "send 1", "launch 2", "send 2"]


def test_only_the_first_rank_answers() -> None:
    """The others compute the same."""
    assert events([Step(1), Step(2), None, Shutdown()], num_polls=1, rank=1) == ["launch 1", "launch 2"]


def test_an_error_is_described_in_one_line() -> None:
    """Its first line, with the type unless that says nothing to an operator."""
    assert describe(ValueError("lower --max-total-tokens\ndetails")) == "lower --max-total-tokens"
    assert describe(RuntimeError("NCCL failed\ndetails")) == "RuntimeError: NCCL failed"
    assert describe(KeyError()) == "KeyError: no message"
