"""Runs the server: starts shards, engine and HTTP, and stops them on a signal or a failure."""

import asyncio
import os
import sys
from functools import partial
from importlib.metadata import version

from tqdm import tqdm

from peregrine_router.admission.grammar_checker import GrammarChecker
from peregrine_router.app import build_app
from peregrine_router.engine.engine import Engine
from peregrine_router.engine.step_times import StepTimes
from peregrine_router.launch.exit_codes import interrupted
from peregrine_router.launch.model_cost import model_cost
from peregrine_router.launch.prepare import (
    Prepared,
    banner,
    machines_config,
    make_scheduler,
    mixed_step_seconds,
    model_info,
    queue_limit,
    shard_config,
)
from peregrine_router.launch.server import Server, say
from peregrine_router.launch.stop_signals import StopSignals
from peregrine_router.observability.log import JsonLines
from peregrine_router.observability.log_writer import LogWriter
from peregrine_router.observability.metrics import Metrics
from peregrine_router.observability.step_metrics import StepMetrics
from peregrine_router.observability.tracing import Tracing, open_tracing
from peregrine_router.shards.process_group import ShardGroup
from peregrine_router.shards.ready_check import check_ready
from peregrine_server.protocol import Loading, Ready

STEP_TIMEOUT_FACTOR = 10
"""Times --shard-timeout that one step may take of shards that live: compiling kernels at a first use takes minutes."""


async def run(prepared: Prepared, log: LogWriter, signals: StopSignals) -> int:
    """Serves until a signal or a failure, then stops every process. Returns the exit code.

    `log`: standard error.
    """
    task = asyncio.current_task()
    assert task is not None
    signals.attach(partial(_cancel_once, task, signals))
    shards: ShardGroup | None = None
    tracing: Tracing | None = None
    try:
        say(f"peregrine {version('peregrine')}: loading {prepared.model_id}")
        config = shard_config(prepared)
        shards = await ShardGroup.start(config, prepared.settings.shard_timeout, machines_config(prepared))
        ready = await wait_ready(shards)
        for each in ready:
            check_ready(each, config)
        # Once the shards have started: gRPC has threads.
        tracing = open_tracing(prepared.settings, os.environ, prepared.model_id)
        server = make_server(prepared, shards, ready, log, tracing)
        signals.handle = server.request_stop
        return await server.run_until_stopped()
    except asyncio.CancelledError:
        assert signals.first is not None
        say(signals.describe())
        return interrupted(signals.first)
    finally:
        signals.handle = lambda: None
        if shards is not None:
            await shards.stop()
        if tracing is not None:
            tracing.close()
        signals.detach()


def make_server(
    prepared: Prepared, shards: ShardGroup, ready: list[Ready], log: LogWriter, tracing: Tracing | None
) -> Server:
    """The engine on shards that are ready, and the server that listens for it."""
    info = model_info(prepared, ready)
    metrics = Metrics(info, model_cost(prepared.config, ready))
    metrics.watch_log(lambda: log.num_dropped)
    scheduler, times = make_scheduler(prepared, ready), StepTimes()
    observers = [
        times,
        StepMetrics(metrics),
        *([scheduler.speculation.cost] if prepared.settings.speculate else []),
        *([tracing.watch_steps(scheduler.in_flight)] if tracing else []),
    ]
    engine = Engine(
        shards,
        scheduler,
        prepared.tokenizer,
        queue_limit(prepared.settings),
        times,
        observers,
        overlaps=prepared.settings.overlap,
        mixed_step_seconds=mixed_step_seconds(prepared.settings, ready),
        vocab_size=prepared.config.vocab_size,
        step_timeout=STEP_TIMEOUT_FACTOR * prepared.settings.shard_timeout,
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
        tracer=tracing.tracer if tracing else None,
    )
    server = Server(app, engine, prepared.settings, prepared.listener)
    say("\n".join(banner(prepared, ready, info)))
    return server


def _cancel_once(task: asyncio.Task[object], signals: StopSignals) -> None:
    """Cancels the start. Another signal must not cancel its clean-up."""
    signals.handle = lambda: None
    task.cancel()


async def wait_ready(shards: ShardGroup) -> list[Ready]:
    """Waits until every rank is ready, with one progress bar over all of them while the weights load."""
    loaded: dict[int, Loading] = {}
    is_json = isinstance(sys.stderr, JsonLines)
    with tqdm(desc="weights", unit="B", unit_scale=True, file=sys.stderr, leave=False, disable=is_json) as bar:

        def show(message: Loading) -> None:
            loaded[message.rank] = message
            bar.total = sum(each.total_bytes for each in loaded.values())
            bar.n = sum(each.loaded_bytes for each in loaded.values())
            bar.refresh()

        return await shards.wait_ready(show)
