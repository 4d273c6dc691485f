"""The command `peregrine` as a process."""

import subprocess
import sys
from importlib.metadata import version

import pytest


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "peregrine_router.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_usage(arguments: tuple[str, ...]) -> None:
    """Without a command the usage is printed, which is no error."""
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: peregrine serve [options]")


def test_version() -> None:
    """--version prints the name and the installed version."""
    assert run("--version").stdout == f"peregrine {version('peregrine')}\n"


def test_an_unknown_command_is_refused() -> None:
    """A command that does not exist is named on stderr, with the usage and exit code 2."""
    done = run("train")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("peregrine: no command 'train'\nusage: peregrine serve")


def test_a_wrong_option_is_one_line() -> None:
    """A wrong option ends with exit code 2 and one line, before anything is loaded."""
    done = run("serve", "--port", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_closed_standard_files_are_opened() -> None:
    """No socket takes the number of one, into which the log would be written."""
    code = (
        "import os; from peregrine_router.cli import open_standard_files; open_standard_files();"
        "os.write(3, ' '.join(os.readlink(f'/proc/self/fd/{number}') for number in range(3)).encode())"
    )
    command = ["sh", "-c", 'exec "$0" -c "$1" 3>&1 <&- >&- 2>&-', sys.executable, code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == " ".join(["/dev/null"] * 3)
