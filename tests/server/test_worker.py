"""The worker's loop: a step that is here already starts before the last one's tokens are waited for."""

from collections import deque
from typing import Any

from peregrine_server.protocol import Shutdown, Step, StepResult
from peregrine_server.worker import run_steps


class FakeDevice:
    """A runner and a link in one, which note what happens in which order."""

    def __init__(self, messages: list[Any], looks: int) -> None:
        """A step is done after so many looks at whether it is."""
        self.messages = deque(messages)
        self.looks = looks
        self.events: list[str] = []

    def receive(self) -> Any:
        message = self.messages.popleft()
        assert message is not None, "waited for a message while a step was unanswered"
        return message

    def poll(self) -> Any:
        return self.messages.popleft()

    def launch(self, step: Step) -> "FakeLaunched":
        self.events.append(f"launch {step.id}")
        return FakeLaunched(self, step.id)

    def waits_in(self, step: Step) -> bool:
        return step.max_draft_tokens > 0

    def send(self, result: StepResult) -> None:
        self.events.append(f"send {result.id}")


class FakeLaunched:
    def __init__(self, device: FakeDevice, step_id: int) -> None:
        self._looks = device.looks
        self._id = step_id

    @property
    def is_done(self) -> bool:
        self._looks -= 1
        return self._looks < 0

    def result(self) -> StepResult:
        return StepResult(self._id, b"", b"", b"")


def events(messages: list[Any], looks: int, rank: int = 0) -> list[str]:
    device = FakeDevice(messages, looks)
    run_steps(device, rank, device)  # type: ignore[arg-type]
    return device.events


def test_the_next_step_starts_before_the_last_is_answered() -> None:
    """On a device that works by itself, with the next step here already."""
    assert events([Step(1), Step(2), None, Shutdown()], looks=1) == ["launch 1", "launch 2", "send 1", "send 2"]


def test_a_step_that_comes_while_another_runs_starts_before_that_is_done() -> None:
    """Else the device would wait for it between the two: the router has it ready only after the answer before."""
    messages = [Step(1), Step(2), None, Step(3), None, None, Shutdown()]
    assert events(messages, looks=2) == ["launch 1", "launch 2", "send 1", "launch 3", "send 2", "send 3"]


def test_a_step_is_answered_when_nothing_else_is_here() -> None:
    """Nobody waits for a message to get the tokens of the step before."""
    assert events([Step(1), None, Step(2), None, Shutdown()], looks=1) == [
        "launch 1",
        "send 1",
        "launch 2",
        "send 2",
    ]


def test_a_step_that_is_done_is_answered_at_once() -> None:
    """On a CPU a step is done when it was launched: the next one must not delay its tokens."""
    assert events([Step(1), Step(2), Shutdown()], looks=0) == ["launch 1", "send 1", "launch 2", "send 2"]


def test_a_step_that_waits_for_the_last_starts_after_its_answer() -> None:
    """Where tokens are guessed from those of the last step, these need not be late as well."""
    messages = [Step(1), Step(2, max_draft_tokens=4), None, Shutdown()]
    assert events(messages, looks=1) == ["launch 1", "send 1", "launch 2", "send 2"]


def test_only_the_first_rank_answers() -> None:
    """The others compute the same."""
    assert events([Step(1), Step(2), None, Shutdown()], looks=1, rank=1) == ["launch 1", "launch 2"]
