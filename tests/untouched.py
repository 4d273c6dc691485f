"""State that an attack must leave as it was: the answer to a golden request, KV blocks, descriptors, memory."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving import ServerProcess, wait_until

GOLDEN_PROMPT = "It was a fine morning, and"
SETTLE_SECONDS = 10
"""Generous: requests whose clients have left are cancelled at their next step, on a machine that others share."""
MAX_KEPT_BYTES = 300 * 10**6
"""Memory that a server may keep after a module's attacks, caches among it."""


def golden(server: ServerProcess) -> str:
    """The text of a greedy request."""
    text: str = server.generate(GOLDEN_PROMPT, max_new_tokens=16).json()["generated_text"]
    return text


def num_descriptors(server: ServerProcess) -> int:
    """Open files of the router."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def total_memory(server: ServerProcess) -> int:
    """Resident bytes of the router and its processes."""
    return sum(memory(pid) for pid in (server.process.pid, *server.shard_pids()))


@contextmanager
def untouched(server: ServerProcess, max_kept_bytes: int = MAX_KEPT_BYTES) -> Iterator[None]:
    """Afterwards nothing runs or is open, the golden request has the same answer, and the processes are not much
    larger."""
    # The process of the chat template is started by the first chat, and again by one after it was killed.
    server.client.post("/chat_tokenize", json={"messages": [{"role": "user", "content": "a"}]})
    before, descriptors, size = golden(server), num_descriptors(server), total_memory(server)
    yield
    assert golden(server) == before
    assert wait_until(lambda: server.metric("peregrine_kv_blocks_used") == 0, SETTLE_SECONDS)
    assert wait_until(lambda: num_descriptors(server) <= descriptors, SETTLE_SECONDS)
    assert wait_until(lambda: total_memory(server) - size < max_kept_bytes, SETTLE_SECONDS)
