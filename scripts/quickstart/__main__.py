"""Runs docs/operations/quickstart.md and prints each step with its seconds: `make quickstart`.

Exit code 1 where a step does not show what it should. Options that are not its own are those of `peregrine serve`.
"""

import argparse
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
from scripts.quickstart.deployment import HOLD
from scripts.quickstart.rehearsal import Options, Rehearsal
from scripts.quickstart.service import StepError


def main() -> int:
    """Every step, until one fails."""
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that what was started is ended.
    rules = "the rules as they are written" if options.is_as_written else f"a copy of the rules with `for: {HOLD}`"
    print(f"{options.image or 'this checkout'}, Prometheus of {options.suite}, {rules}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="peregrine-quickstart-") as folder, ExitStack() as stack:
        if not run(Rehearsal(options, Path(folder), stack)):
            return 1
    print(f"{time.monotonic() - start:6.1f} s  in all, nothing is left running")
    return 0


def run(rehearsal: Rehearsal) -> bool:
    """Whether every step showed what it should."""
    for name, step in rehearsal.steps.items():
        start = time.monotonic()
        try:
            seen = step()
        except (StepError, FileNotFoundError, httpx.HTTPError) as error:
            print(f"{time.monotonic() - start:6.1f} s  {name} FAILED: {error}", flush=True)
            return False
        print(f"{time.monotonic() - start:6.1f} s  {name}: {seen}", flush=True)
    return True


def parse(arguments: list[str]) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser("python -m scripts.quickstart", allow_abbrev=False)
    parser.add_argument("--image", help="run this image with docker or podman, not this checkout")
    parser.add_argument("--suite", choices=("forky", "bookworm"), default="forky", help="Debian's Prometheus to use")
    parser.add_argument(
        "--as-written", action="store_true", help="the rules' own durations: the alert takes a minute longer"
    )
    known, rest = parser.parse_known_args(arguments)
    return Options(known.image, known.suite, known.as_written, rest)


if __name__ == "__main__":
    sys.exit(main())
