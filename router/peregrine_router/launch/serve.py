"""Runs the server: starts shards, engine and HTTP, and stops them on a signal or a failure."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version

import uvicorn
from fastapi import FastAPI
from tqdm import tqdm

from peregrine_router.admission.grammar_checker import GrammarChecker
from peregrine_router.app import build_app
from peregrine_router.engine.engine import Engine
from peregrine_router.engine.step_times import StepTimes
from peregrine_router.launch.http_protocol import BoundedHttpProtocol
from peregrine_router.launch.prepare import (
    Prepared,
    banner,
    make_scheduler,
    mixed_step_seconds,
    model_info,
    queue_limit,
    shard_config,
)
from peregrine_router.observability.metrics import Metrics
from peregrine_router.observability.step_metrics import StepMetrics
from peregrine_router.settings import Settings
from peregrine_router.shards.process_group import ShardGroup
from peregrine_server.protocol import Loading, Ready


async def run(prepared: Prepared) -> int:
    """Serves until a signal or a failure, then stops every process. Returns 0 after a graceful stop, else 1."""
    task = asyncio.current_task()
    assert task is not None
    say(f"peregrine {version('peregrine')}: loading {prepared.model_id}")
    with on_signals(task.cancel):
        shards = await ShardGroup.start(shard_config(prepared))
    try:
        with on_signals(task.cancel):
            ready = await wait_ready(shards)
        info = model_info(prepared, ready)
        metrics = Metrics(info)
        scheduler, queue = make_scheduler(prepared, ready), queue_limit(prepared.settings)
        times = StepTimes()
        observers = [
            times,
            StepMetrics(metrics),
            *([scheduler.speculation.cost] if prepared.settings.speculate else []),
        ]
        engine = Engine(
            shards,
            scheduler,
            prepared.tokenizer,
            queue,
            times,
            observers,
            overlaps=prepared.settings.overlap,
            mixed_step_seconds=mixed_step_seconds(prepared.settings, ready),
        )
        grammars = GrammarChecker.load(prepared.path, prepared.config.vocab_size, prepared.tokenizer.eos_token_ids)
        app = build_app(
            engine,
            prepared.tokenizer,
            prepared.settings,
            info,
            chat=prepared.chat,
            metrics=metrics,
            check_grammar=grammars.check,
        )
        say("\n".join(banner(prepared, ready, info)))
        return await serve(Server(uvicorn_config(app, prepared.settings)), engine, prepared)
    finally:
        await shards.stop()


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, which raise the signal again and would cancel the clean-up of the shards."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does nothing; `on_signals` handles signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Excludes all objects made so far from garbage collection: a full pass over them would delay every stream."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()

    def request_stop(self) -> None:
        """Stops the server: the first call lets running requests finish, the second does not."""
        if self.should_exit:
            self.force_exit = True
        else:
            say("peregrine: stopping after the running requests; once more to stop now")
            self.should_exit = True


async def serve(server: Server, engine: Engine, prepared: Prepared) -> int:
    """Runs HTTP and the step loop; when one ends, the other is ended."""
    stepping = asyncio.create_task(engine.run())
    stepping.add_done_callback(lambda _: setattr(server, "should_exit", True))
    with on_signals(server.request_stop):
        await server.serve(sockets=[prepared.listener])
    if stepping.done():
        say(f"peregrine: {stepping.exception()}; the server has ended")
        return 1
    stepping.cancel()
    await asyncio.gather(stepping, return_exceptions=True)
    return 0


@contextlib.contextmanager
def on_signals(handle: Callable[[], object]) -> Iterator[None]:
    """Calls `handle` on the event loop at Ctrl-C and SIGTERM while the block runs."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def wait_ready(shards: ShardGroup) -> list[Ready]:
    """Waits until every rank is ready, with one progress bar over all of them while the weights load."""
    loaded: dict[int, Loading] = {}
    with tqdm(desc="weights", unit="B", unit_scale=True, file=sys.stderr, leave=False) as bar:

        def show(message: Loading) -> None:
            loaded[message.rank] = message
            bar.total = sum(each.total_bytes for each in loaded.values())
            bar.n = sum(each.loaded_bytes for each in loaded.values())
            bar.refresh()

        return await shards.wait_ready(show)


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """uvicorn's configuration: our HTTP protocol, no access log, no log of its own."""
    return uvicorn.Config(
        app,
        http=BoundedHttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.graceful_termination_timeout,
        timeout_keep_alive=settings.keep_alive_timeout,
    )


def say(text: str) -> None:
    """Prints a line for the operator, unbuffered."""
    print(text, file=sys.stderr, flush=True)
