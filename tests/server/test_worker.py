"""The worker's loop: a step that has arrived is launched before the running one's tokens are waited for."""

from collections import deque
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec.structs import replace

from peregrine_server import worker
from peregrine_server.protocol import Shutdown, Step, StepResult, encode
from peregrine_server.worker import Link, describe, run_steps

DEEP = encode(Shutdown()).replace(b"\x91", b"\x92", 1) + b"\x91" * 100_000 + b"\xc0"
"""A message with a field that nobody knows, nested without end."""


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


def test_a_message_that_is_too_long_never_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ZeroMQ drops it with its connection, which the router notices; the shard keeps nothing of it."""
    monkeypatch.setattr(worker, "MAX_MESSAGE_BYTES", 1000)
    context = zmq.Context()
    router = context.socket(zmq.PAIR)
    router.bind(f"ipc://{tmp_path}/shard.sock")
    ends = router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    link = Link.connect(f"{tmp_path}/shard.sock")
    step = Step(1, num_tokens=bytes(1000 - len(encode(Step(1, num_tokens=bytes(300)))) + 300))
    router.send(encode(step))
    assert link.receive() == step
    router.send(encode(replace(step, num_tokens=step.num_tokens + b"0")))
    assert ends.poll(5000)
    assert link.poll() is None
    link.close()
    context.destroy(linger=0)


@pytest.mark.parametrize("frame", [b"", b"no message", b"\x93\xa2\xff\xff", b"\x91\xa8shutdown" + b"\xff", DEEP])
def test_a_message_that_cannot_be_read_is_one_line(frame: bytes, tmp_path: Path) -> None:
    """It ends the shard, whatever msgspec raises."""
    context = zmq.Context()
    router = context.socket(zmq.PAIR)
    router.bind(f"ipc://{tmp_path}/shard.sock")
    link = Link.connect(f"{tmp_path}/shard.sock")
    router.send(frame)
    with pytest.raises(ValueError, match=r"^the router sent an unknown message \(.*\): is its version the shard's\?$"):
        link.receive()
    link.close()
    context.destroy(linger=0)


def test_an_error_is_described_in_one_line() -> None:
    """Its first line, with the type unless that says nothing to an operator."""
    assert describe(ValueError("lower --max-total-tokens\ndetails")) == "lower --max-total-tokens"
    assert describe(RuntimeError("NCCL failed\ndetails")) == "RuntimeError: NCCL failed"
    assert describe(KeyError()) == "KeyError: no message"
