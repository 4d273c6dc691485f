"""The command `peregrine`. Wiring only: arguments in, exit code out."""

import asyncio
import sys

from peregrine_router.launch.command_line import parse_settings
from peregrine_router.shards.process_group import ShardError

USAGE = """\
usage: peregrine serve [options]     start the server; no options serve the built-in demo model
       peregrine serve --help        every option, with its environment variable and default
       peregrine --version
"""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells report it: 128 + SIGINT."""


def main() -> None:
    """Exit codes: 0 after a graceful stop, 1 if serving failed, 2 for bad arguments, 130 for Ctrl-C while starting."""
    match sys.argv[1:]:
        case ["serve", *options]:
            raise SystemExit(serve(options))
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
    settings = parse_settings(options)
    # Imported after the options are parsed, so that a wrong one is reported at once.
    import uvloop

    from peregrine_router.launch.prepare import prepare
    from peregrine_router.launch.serve import run

    try:
        return uvloop.run(run(prepare(settings)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except (ValueError, OSError, ShardError) as error:
        print(f"peregrine: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    main()
