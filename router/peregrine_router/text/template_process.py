"""Renders one chat template in a process of its own: started on first use, killed when a rendering takes too long."""

import asyncio
import json
import logging
import sys
import time
from asyncio.subprocess import PIPE, Process
from typing import Any

START_SECONDS = 30.0
"""Timeout of starting the process and compiling the template."""
RENDER_SECONDS = 2.0
"""Timeout of one rendering."""
RESTART_SECONDS = 1.0
"""Time without another attempt after the process has ended twice for one request: starting it takes much of a core."""
MAX_LINE_BYTES = 64 * 2**20
"""Longest line that the worker may answer: its limit on characters, some of them written as `\\uXXXX`."""
log = logging.getLogger(__name__)


class TemplateError(ValueError):
    """The chat template rejects the messages or has an error itself, or there is no template (HTTP 422)."""


class TemplateProcessDied(RuntimeError):
    """The process that renders chat templates cannot be kept alive: no fault of the client (HTTP 503)."""


class TemplateFault(RuntimeError):
    """An error of Jinja or Python while a template was compiled or rendered; the message is for the log."""


class TemplateProcess:
    """Runs one rendering at a time: each takes a fraction of a millisecond, and the worker has one thread."""

    def __init__(self, template: str) -> None:
        self._template = template
        self._process: Process | None = None
        self._lock = asyncio.Lock()
        self._not_before = 0.0
        """`time.monotonic()` before which it is not started again."""

    async def render(self, variables: dict[str, Any]) -> str:
        """The rendered text. Raises TemplateError, or TemplateProcessDied if the process ends twice."""
        async with self._lock:
            if time.monotonic() < self._not_before:
                raise TemplateProcessDied
            answer = await self._render(variables) or await self._render(variables)
            if answer is None:
                self._not_before = time.monotonic() + RESTART_SECONDS
                raise TemplateProcessDied
        if "error" in answer:
            raise TemplateError(str(answer["error"])) from _cause(answer)
        return str(answer["text"])

    async def _render(self, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The process's answer; None if it has ended, or does not start."""
        try:
            if await self._start():
                return await self._ask(variables, RENDER_SECONDS)
        except TimeoutError:
            await self._kill()
            raise TemplateError("rendering takes too long") from None
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: uvloop's for a pipe that is closed
            log.warning("the process of the chat template has ended (%s)", type(error).__name__)
            await self._kill()
        except asyncio.CancelledError:
            # Its answer is still to come, and the next request would read it as its own.
            await self._kill()
            raise
        return None

    async def close(self) -> None:
        """Ends the process."""
        async with self._lock:
            await self._kill()

    async def _start(self) -> bool:
        """Starts the process unless it runs. False if it does not start in time."""
        if self._process is not None and self._process.returncode is None:
            return True
        await self._kill()
        command = (sys.executable, "-m", "peregrine_router.text.template_worker")
        # A session of its own, so that Ctrl-C reaches the server only.
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, limit=MAX_LINE_BYTES, start_new_session=True
        )
        try:
            await self._ask({"template": self._template}, START_SECONDS)
        except TimeoutError:
            log.warning("the process of the chat template did not start in %.0f s", START_SECONDS)
            await self._kill()
            return False
        return True

    async def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(seconds):
            # As UTF-8: 1 MB of é, each as \u00e9, took 20 ms on the event loop.
            text = json.dumps(message, ensure_ascii=False)
            process.stdin.write(text.encode(errors="surrogatepass") + b"\n")
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


def _cause(answer: dict[str, Any]) -> TemplateFault | None:
    return TemplateFault(answer["detail"]) if "detail" in answer else None
