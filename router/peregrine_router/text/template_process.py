"""Renders one chat template in a process of its own: started on first use, killed when a rendering takes too long."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any

START_SECONDS = 30.0
"""Timeout of starting the process and compiling the template."""
RENDER_SECONDS = 2.0
"""Timeout of one rendering."""
MAX_LINE_BYTES = 64 * 2**20
"""Longest line that the worker may answer: its limit on characters, each written as `\\uXXXX`."""


class TemplateError(ValueError):
    """The chat template rejects the messages or has an error itself, or there is no template (HTTP 422)."""


class TemplateProcess:
    """Runs one rendering at a time: each takes a fraction of a millisecond, and the worker has one thread."""

    def __init__(self, template: str) -> None:
        self._template = template
        self._process: Process | None = None
        self._lock = asyncio.Lock()

    async def render(self, variables: dict[str, Any]) -> str:
        """The rendered text. Raises TemplateError."""
        async with self._lock:
            try:
                if self._process is None:
                    answer = await self._start()
                answer = await self._ask(variables, RENDER_SECONDS)
            except TimeoutError:
                await self._kill()
                raise TemplateError("rendering takes too long") from None
            except (OSError, ValueError) as error:
                await self._kill()
                raise TemplateError(f"rendering failed ({type(error).__name__})") from None
            except asyncio.CancelledError:
                # Its answer is still to come, and the next request would read it as its own.
                await self._kill()
                raise
        if "error" in answer:
            raise TemplateError(str(answer["error"]))
        return str(answer["text"])

    async def close(self) -> None:
        """Ends the process."""
        async with self._lock:
            await self._kill()

    async def _start(self) -> dict[str, Any]:
        command = (sys.executable, "-m", "peregrine_router.text.template_worker")
        # A session of its own, so that Ctrl-C reaches the server only; the worker ends when its standard input closes.
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, limit=MAX_LINE_BYTES, start_new_session=True
        )
        return await self._ask({"template": self._template}, START_SECONDS)

    async def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(seconds):
            process.stdin.write(json.dumps(message).encode() + b"\n")
            await process.stdin.drain()
            answer: dict[str, Any] = json.loads(await process.stdout.readline())
            return answer

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        # Waits for the pipes as well, or their transports would outlive the loop.
        await process.communicate()
