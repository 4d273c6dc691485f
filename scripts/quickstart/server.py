"""The server under rehearsal: `peregrine serve` of this checkout, or a container."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from scripts.quickstart.service import Service, StepError

SHARDS = "grep -l 'peregrine_server[.]worker' /proc/[0-9]*/cmdline | cut -d/ -f3"
"""Prints the numbers of the shards' processes, in a container with one server. The brackets hide the shell itself."""


class Server(Service):
    """A server of this checkout."""

    def __init__(self, port: int, options: Sequence[str], log: Path) -> None:
        command = [str(Path(sys.executable).with_name("peregrine")), "serve", "--port", str(port), *options]
        super().__init__(command, port, log)

    def signal_shards(self, number: signal.Signals) -> None:
        """Sends a signal to every shard."""
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            if b"peregrine_server.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), number)

    def first_text(self, prompt: str) -> str:
        """Text of the first token of a stream. Raises StepError where there is none."""
        body = {"inputs": prompt, "parameters": {"max_new_tokens": 8}}
        with self.client.stream("POST", "/generate_stream", json=body) as answer:
            for line in answer.iter_lines():
                if line.startswith("data:") and "token" in (event := json.loads(line[5:])):
                    return str(event["token"]["text"])
        raise StepError(f"the stream ended without a token, status {answer.status_code}")


class Container(Server):
    """A server in a container on the host's network, confined as docs/image.md says."""

    def __init__(self, image: str, port: int, options: Sequence[str], log: Path) -> None:
        self._engine = _engine()
        self._name = f"peregrine-quickstart-{os.getpid()}"
        confined = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
        address = ("--network", "host", "--env", f"PORT={port}", "--env", "PEREGRINE_HOSTNAME=127.0.0.1")
        run = ("run", "--rm", "--name", self._name, *confined, *address)
        Service.__init__(self, [*self._engine, *run, image, *options], port, log)

    def signal_shards(self, number: signal.Signals) -> None:
        script = f"kill -{number.name.removeprefix('SIG')} $({SHARDS})"
        subprocess.run([*self._engine, "exec", self._name, "sh", "-c", script], check=True, timeout=60)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        subprocess.run([*self._engine, "rm", "--force", self._name], capture_output=True, check=False, timeout=60)
        super().__exit__(kind, error, at)


def _engine() -> list[str]:
    """docker or podman; `PEREGRINE_IMAGE_ENGINE` names another. Raises StepError where there is none."""
    if named := os.environ.get("PEREGRINE_IMAGE_ENGINE"):
        return shlex.split(named)
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "ps"], capture_output=True, check=False).returncode == 0:
            return [name]
    raise StepError("neither docker nor podman answers: start one, or leave --image out")
