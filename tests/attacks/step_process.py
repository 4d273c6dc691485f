"""A shard on frames from its input instead of a socket: a line of JSON with base64 frames, answered by one of JSON.

{"answers": number of results} or {"error": the one line that the router gets}; in both cases with what the steps of a
golden request give afterwards, and the resident memory. Anything else is a crash.
"""

import base64
import json
import resource
import sys
from pathlib import Path
from typing import Any

from peregrine_server.execution.runner import Runner
from peregrine_server.protocol import FromShard, Shutdown, Step, decode_to_shard, encode, pack
from peregrine_server.worker import Link, describe, run_steps
from runners import generated, load_runner, make_scheduler, run
from step_frames import MAX_BATCH_SIZE, NUM_BLOCKS, SHARD, golden_request

MEMORY_BYTES = 2 << 30
"""Address space that steps may take beside the model: a grammar's thread alone reserves half a gigabyte of stack."""


class FrameSocket:
    """Frames in the place of a ZeroMQ socket, and a `Shutdown` behind them."""

    def __init__(self, frames: list[bytes]) -> None:
        self._frames = [*frames, encode(Shutdown())][::-1]
        self.num_sent = 0

    def recv(self) -> bytes:
        return self._frames.pop()

    def poll(self, _: int) -> bool:
        return True

    def send(self, _: bytes) -> None:
        self.num_sent += 1


class FrameLink(Link):
    """The shard's own link on such a socket."""

    def __init__(self, frames: list[bytes]) -> None:
        self._socket: Any = FrameSocket(frames)

    @property
    def num_sent(self) -> int:
        """Results."""
        return int(self._socket.num_sent)

    def send(self, message: FromShard) -> None:
        encode(message)
        super().send(message)


def golden(runner: Runner) -> list[int]:
    """The tokens of a greedy request, after every slot is freed."""
    runner.execute(Step(0, freed=pack(range(MAX_BATCH_SIZE))))
    (sequence,) = run(runner, make_scheduler(NUM_BLOCKS, max_batch_size=MAX_BATCH_SIZE), [golden_request()])
    return generated(sequence)


def answer(runner: Runner, frames: list[bytes]) -> dict[str, object]:
    """The end of a shard that gets these frames, as in `worker.main`."""
    link = FrameLink(frames)
    try:
        run_steps(runner, 0, link)
    except Exception as error:
        return {"error": describe(error)}
    return {"answers": link.num_sent}


def main() -> None:
    """Answers until the input ends."""
    runner = load_runner(Path(sys.argv[1]), **SHARD)
    before = golden(runner)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
    for line in sys.stdin:
        frames = [base64.b64decode(each) for each in json.loads(line)]
        result = answer(runner, frames)
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        print(json.dumps({**result, "is_as_before": golden(runner) == before, "memory": resident}), flush=True)


if __name__ == "__main__":
    assert isinstance(decode_to_shard(encode(Shutdown())), Shutdown)
    main()
