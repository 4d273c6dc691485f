"""`python -m benchmarks.overload_server CORE STEP_SECONDS BATCH`: the server of benchmarks/overload.py on one core: the
router with the limits and the log of `peregrine serve`, on shards whose steps take a given time."""

import os
import socket
import sys

import uvloop

from benchmarks.router_servers import serve_router
from peregrine_router.observability.log import configure_logging
from peregrine_router.observability.log_writer import LogWriter
from peregrine_router.settings import Settings

NUM_BLOCKS = 2**12


def main() -> None:
    """Serves until a signal; prints the port."""
    core, step_seconds, batch = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    os.sched_setaffinity(0, {core})
    sys.stderr = LogWriter(sys.stderr.fileno())
    configure_logging()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    uvloop.run(serve_router(listener, NUM_BLOCKS, Settings(max_batch_size=batch or None), step_seconds))


if __name__ == "__main__":
    main()
