"""`python tests/attack_table.py`: effects of each input on a server that streams beside it, as a table in Markdown.

Each input is posted again and again for some seconds, by one client and by eight. The clients run on the last core, the
server on all; the calm figures are of the same stream without an attack. To be run on a machine that is quiet: how much
it is, the timer of an idle process says.
"""

import argparse
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from attack_inputs import ATTACKS, BODY_BYTES
from attacked import AttackedServer, Damage, listening
from raw_http import HEAD, statuses

AT_ONCE = (1, 8)
COLUMNS = ("input", "answers", "timer, ms", "idle process's", "memory, MB", "time between tokens / calm", "answers/s")
HEAD_ROW = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"
"""Timers: 99.9th percentile; time between tokens: 99th; two values are for one client and for eight."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="time for which an input is posted")
    parser.add_argument("--size", type=int, default=BODY_BYTES, help="bytes of a body")
    parser.add_argument("--part", type=int, nargs=2, default=(1, 1), metavar=("K", "N"), help="the k-th of n parts")
    parser.add_argument("--model-id", help="the model beside; by default the demo, whose steps take a millisecond")
    parser.add_argument("names", nargs="*", metavar="NAME", help="inputs; all by default")
    options = parser.parse_args()
    part, parts = options.part
    with AttackedServer(*(("--model-id", options.model_id) if options.model_id else ())) as server:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        server.client.get("/health")
        calm, calm_gap = measure(server, "", b"", 0, 5.0)
        print(f"calm: timer {calm.late * 1e3:.0f} ms, p99 between tokens {calm_gap * 1e3:.1f} ms\n")
        print(HEAD_ROW)
        for name in (options.names or list(ATTACKS))[part - 1 :: parts]:
            path, body = ATTACKS[name](options.size)
            found = [measure(server, path, body, at_once, options.seconds) for at_once in AT_ONCE]
            print(row(name, found, calm_gap), flush=True)


def measure(server: AttackedServer, path: str, body: bytes, at_once: int, seconds: float) -> tuple[Damage, float]:
    """Effects of `at_once` clients, and the 99th percentile of the time between two tokens beside them."""
    end = time.monotonic() + seconds

    def post(_: int) -> list[int]:
        answers: list[int] = []
        while not answers or time.monotonic() < end:
            answers.append(answer(server.port, path, body))
        return answers

    def attack() -> list[int]:
        if not at_once:
            time.sleep(seconds)
            return []
        with ThreadPoolExecutor(at_once) as threads:
            return [status for each in threads.map(post, range(at_once)) for status in each]

    with listening(server) as listener:
        time.sleep(0.2)
        damage = server.watch(attack)
    return damage, listener.p99


def answer(port: int, path: str, body: bytes) -> int:
    """Posts a body, and reads the answer without parsing it; the status, or 0."""
    head = HEAD.replace(b"/generate", path.encode()) + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    first = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            connection.sendall(head)
            connection.sendall(body)
            while data := connection.recv(2**18):
                first = first or data
    except OSError:
        return 0
    return (statuses(first) or [0])[0]


def row(name: str, found: list[tuple[Damage, float]], calm_gap: float) -> str:
    """An input as a row of the table: values of one and of eight at once."""
    cells = (
        ", ".join(map(str, sorted({status for damage, _ in found for status in damage.statuses}))),
        " / ".join(f"{damage.late * 1e3:.0f}" for damage, _ in found),
        " / ".join(f"{damage.idle_late * 1e3:.0f}" for damage, _ in found),
        " / ".join(f"+{damage.growth / 1e6:.0f}" for damage, _ in found),
        " / ".join(f"{gap / calm_gap:.1f}" for _, gap in found),
        " / ".join(f"{len(damage.statuses) / damage.seconds:.2g}" for damage, _ in found),
    )
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
