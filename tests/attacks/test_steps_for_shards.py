"""Steps that are damaged in every way: a shard ends with one line, or answers; no memory of another is touched."""

import base64
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from frames import SECONDS, Damage, damages, fuzz
from runners import load_runner
from serving import write_model
from step_frames import SHARD, record

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * SECONDS + 300)]

MAX_GROWTH_BYTES = 300 * 2**20
"""Bound on a shard's memory over that after its first hundred examples: compiled grammars among it."""
HANG_SECONDS = 60.0


class FrameShard:
    """The process of a shard that gets frames, started again whenever it has died."""

    def __init__(self, model: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("step_process.py")), str(model)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.memory: list[int] = []

    def answer(self, frames: list[bytes]) -> dict[str, Any]:
        """Its end after these frames. Fails if there is none, or none in time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([base64.b64encode(frame).decode() for frame in frames]) + "\n")
        self.process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(HANG_SECONDS), "the shard hangs"
        line = self.process.stdout.readline()
        assert line, f"the shard died with {self.process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        self.memory.append(answer["memory"])
        return answer

    def stop(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def frames(model: Path) -> list[bytes]:
    return record(load_runner(model, **SHARD))


@pytest.fixture
def shard(model: Path) -> Iterator[FrameShard]:
    shard = FrameShard(model)
    yield shard
    shard.stop()


def test_a_shard_takes_no_harm_from_any_step(shard: FrameShard, frames: list[bytes]) -> None:
    """It ends with one line or answers; another request's tokens are the same afterwards, and memory is bounded."""

    def check(example: tuple[int, Damage]) -> None:
        at, damage = example
        at %= len(frames)
        answer = shard.answer([*frames[:at], *damage(frames[at]), *frames[at + 1 :]])
        assert "answers" in answer or (answer["error"] and "\n" not in answer["error"]), answer
        assert answer["is_as_before"], answer
        errors[answer.get("error", "")[:60]] = errors.get(answer.get("error", "")[:60], 0) + 1

    errors: dict[str, int] = {}
    assert shard.answer(frames)["answers"] == len(frames)
    count = fuzz(st.tuples(st.integers(0, 100), damages), check)
    growth = max(shard.memory) - max(shard.memory[:100])
    print(f"{count} damaged steps, memory +{growth / 2**20:.0f} MB")
    if "PEREGRINE_FUZZ_ERRORS" in os.environ:
        print("\n".join(f"{n:6} {error}" for error, n in sorted(errors.items(), key=lambda each: -each[1])))
    assert growth < MAX_GROWTH_BYTES
