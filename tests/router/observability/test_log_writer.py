"""Standard error that nobody reads, on real pipes."""

import os
import re
import threading
import time
from collections.abc import Iterator

import pytest

from peregrine_router.observability.log_writer import MAX_PENDING_CHARACTERS, LogWriter
from serving import wait_until

LINE = "x" * 99 + "\n"


class Pipe:
    """A pipe and a writer into it."""

    def __init__(self) -> None:
        self.reader, self.end = os.pipe()
        self.writer = LogWriter(self.end)

    def read_until(self, text: str) -> str:
        """Reads until `text` has come."""
        read = ""
        while text not in read:
            read += os.read(self.reader, 2**16).decode()
        return read

    def fill(self) -> int:
        """Writes more than pipe and writer hold; the number of lines."""
        count = 2 * MAX_PENDING_CHARACTERS // len(LINE)
        for _ in range(count):
            self.writer.write(LINE)
        return count


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)
    pipe.writer.drain()


def test_lines_come_in_order(pipe: Pipe) -> None:
    """From several threads too, each line whole."""

    def write(name: str) -> None:
        for number in range(200):
            print(f"{name} {number} {LINE.strip()}\n", end="", file=pipe.writer)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    pipe.writer.write("")
    for thread in threads:
        thread.join()
    pipe.writer.write("the end\n")
    lines = pipe.read_until("the end\n").splitlines()
    assert [line for line in lines if line.startswith("a ")] == [f"a {number} {LINE.strip()}" for number in range(200)]
    assert len(lines) == 401
    assert pipe.writer.num_dropped == 0


def test_a_full_pipe_drops_lines_and_counts_them(pipe: Pipe) -> None:
    """Writing does not wait; what was read and what was dropped are all lines, and the log says how many were."""
    start = time.monotonic()
    count = pipe.fill()
    assert time.monotonic() - start < 2
    dropped = pipe.writer.num_dropped
    assert 0 < dropped < count

    def num_reported(text: str) -> int:
        return sum(map(int, re.findall(r"peregrine: (\d+) lines of the log were dropped: nobody read", text)))

    def end() -> None:
        assert wait_until(lambda: pipe.writer._num_pending == 0, 10)
        pipe.writer.write("later\n")

    thread = threading.Thread(target=end)
    thread.start()
    text = pipe.read_until("later\n")
    thread.join()
    while num_reported(text) < dropped:
        text += pipe.read_until("in time\n")
    assert text.count(LINE) == count - dropped
    assert num_reported(text) == dropped
    assert pipe.writer.num_dropped == dropped


def test_a_gone_reader_is_no_error(pipe: Pipe) -> None:
    """Lines are counted as dropped, and nothing is raised; `drain` does not wait for nobody."""
    os.close(pipe.reader)
    pipe.reader = os.open(os.devnull, os.O_RDONLY)
    pipe.writer.write(LINE)
    pipe.writer.flush()
    pipe.writer.drain()
    assert pipe.writer.num_dropped == 1


def test_a_stuck_reader_is_not_waited_for(pipe: Pipe) -> None:
    """`drain` ends in time."""
    pipe.fill()
    start = time.monotonic()
    pipe.writer.drain(0.2)
    assert 0.2 <= time.monotonic() - start < 2


def test_a_descriptor_that_others_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    """A full pipe is then an error of the write, not of the log."""
    os.set_blocking(pipe.end, False)
    for _ in range(2_000):
        pipe.writer.write(LINE)
    pipe.writer.write("the end\n")
    assert pipe.read_until("the end\n").count(LINE) == 2_000
    assert pipe.writer.num_dropped == 0


def test_text_of_any_kind_is_written(pipe: Pipe) -> None:
    """Lone surrogates, as in the name of a file, are escaped."""
    print("caf\u00e9 \udcff", file=pipe.writer)
    assert pipe.read_until("\n") == "caf\u00e9 \\udcff\n"
    assert not pipe.writer.isatty()
    assert pipe.writer.fileno() == pipe.end
