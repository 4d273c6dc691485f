"""Check that the router's threads can start (`ulimit -u`, a container's number of processes)."""

import threading

NUM_THREADS = 16
"""Threads of the router: log, ZeroMQ's two, tokenizing, grammars, messages, bodies, and some to spare."""
TOO_FEW_THREADS = (
    f"{NUM_THREADS} threads cannot start: raise `ulimit -u` and `ulimit -v`, or the container's limit on processes"
)


def can_start_threads(count: int = NUM_THREADS) -> bool:
    """Starts so many threads and ends them again. ZeroMQ would abort the process, which then leaves its files:
    `Resource temporarily unavailable (src/thread.cpp:241)`."""
    is_over = threading.Event()
    threads = [threading.Thread(target=is_over.wait, daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:  # "can't start new thread"
        return False
    finally:
        is_over.set()
    return True
