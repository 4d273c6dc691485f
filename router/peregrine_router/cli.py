"""The command `peregrine`. Wiring only: arguments in, exit code out."""

import os
import sys

USAGE = """\
usage: peregrine serve [options]     start the server; no options serve the built-in demo model
       peregrine serve --help        every option, with its environment variable and default
       peregrine plan MODEL          say what a model takes, what fits a device, and how to serve it
       peregrine quantize --help     write a model with quantized weights
       peregrine health              exit 0 if the server of this container can make a token now
       peregrine shard --help        join a router on another machine as one of its shards
       peregrine keys FILE           make the keys by which shards on other machines join
       peregrine --version
"""


def main() -> None:
    """Runs the command `peregrine`."""
    run_command(sys.argv[1:])


def launch() -> None:
    """Runs the command `text-generation-launcher`, whose options are those of `peregrine serve`."""
    run_command(["--version"] if sys.argv[1:] in (["-V"], ["--version"]) else ["serve", *sys.argv[1:]])


def run_command(arguments: list[str]) -> None:
    """Exits with a code of `launch/exit_codes.py`."""
    open_standard_files()
    match arguments:
        case ["serve", *options]:
            # Not SystemExit, which waits for threads: one may tokenize megabytes for a client that is gone.
            os._exit(serve(options))
        case ["plan", *options]:
            from peregrine_router.planning.command import run_plan

            raise SystemExit(run_plan(options))
        case ["shard", *options]:
            from peregrine_router.launch.shard_command import run_shard

            # Not SystemExit, which waits for ZeroMQ's threads.
            os._exit(run_shard(options))
        case ["keys", *options]:
            from peregrine_router.launch.shard_command import run_keys

            raise SystemExit(run_keys(options))
        case ["quantize", *options]:
            from peregrine_router.launch.quantize_command import run_quantize

            raise SystemExit(run_quantize(options))
        case ["health"]:
            from peregrine_router.launch.health import health

            raise SystemExit(health())
        case ["--version"]:
            from importlib.metadata import version

            print(f"peregrine {version('peregrine')}")
        case [] | ["-h" | "--help"]:
            print(USAGE, end="")
        case [command, *_]:
            print(f"peregrine: no command {command!r}\n{USAGE}", end="", file=sys.stderr)
            raise SystemExit(2)


def serve(options: list[str]) -> int:
    """Runs `peregrine serve`. An error that the operator can fix is one line on stderr, not a traceback."""
    # What stops the server and what it says come first; the other imports take a second, and are the options' to wait
    # for: a wrong one is reported before the last of them.
    from peregrine_router.launch.exit_codes import FAILED
    from peregrine_router.launch.stop_signals import StopSignals
    from peregrine_router.launch.temporary_folder import remove_temporary_folders
    from peregrine_router.launch.thread_limit import TOO_FEW_THREADS, can_start_threads
    from peregrine_router.observability.log_writer import LogWriter

    if not can_start_threads():
        print(f"peregrine: {TOO_FEW_THREADS}", file=sys.stderr)
        return FAILED
    sys.stderr = log = LogWriter(sys.stderr.fileno())
    signals = StopSignals(log)
    try:
        from peregrine_router.launch.command_line import parse_settings, warn_of_ignored
        from peregrine_router.observability.log import LEVELS, configure_logging

        settings = parse_settings(options)
        configure_logging(json_output=settings.json_output, level=LEVELS[settings.log_level])
        warn_of_ignored(options)
        import uvloop

        from peregrine_router.launch.prepare import prepare
        from peregrine_router.launch.serve import run
        from peregrine_router.shards.process_group import ShardError

        try:
            prepared = prepare(settings)
            return uvloop.run(run(prepared, log, signals))
        except ShardError as error:
            from peregrine_router.planning.nearest import nearest_that_fits

            print(f"peregrine: {error}{nearest_that_fits(prepared, error.free_bytes)}", file=sys.stderr)
            return FAILED
        except (ValueError, OSError) as error:
            print(f"peregrine: {error}", file=sys.stderr)
            return FAILED
        finally:
            remove_temporary_folders()
    finally:
        log.drain()


def open_standard_files() -> None:
    """Opens /dev/null where standard input, output or error is closed: a socket would take its number, and the log."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
