"""Threads that load parts of a model at once."""

import threading
from pathlib import Path

import pytest
import torch

from checkpoints import build_model, write_checkpoint
from cpu_backends import native
from falcons import CPU, failure, load, model_context
from peregrine_kernels.cpu.native_linear import NativeLinear
from peregrine_server.models.falcon.model import Falcon, SplitBlock
from peregrine_server.models.loading import read_ahead
from peregrine_server.models.loading.read_ahead import NUM_THREADS, ReadAhead
from peregrine_server.models.loading.safetensors_file import SafetensorsFile
from peregrine_server.models.loading.tensor_file import CheckpointError

SECONDS = 20
"""Time after which a thread that should have come is not waited for."""


def test_parts_come_in_order_from_several_threads() -> None:
    """Each of the threads has an item at the same time, and the first item is the last that is ready."""
    together, others = threading.Barrier(NUM_THREADS), threading.Barrier(NUM_THREADS)

    def square(item: int) -> int:
        if item < NUM_THREADS:
            together.wait(SECONDS)
            others.wait(SECONDS)
        return item * item

    assert ReadAhead(CPU).load(square, range(8)) == [item * item for item in range(8)]


def test_tensors_are_read_ahead_within_the_limit() -> None:
    """Threads hold no more bytes at once than the limit, and reach it; a larger tensor is read when nothing is held."""
    ahead, held, most = ReadAhead(CPU, limit=250), dict[int, int](), list[int]()
    both = threading.Event()

    def read(num_bytes: int) -> None:
        held.pop(threading.get_ident(), None)
        ahead.hold(num_bytes)
        held[threading.get_ident()] = num_bytes
        most.append(sum(held.copy().values()))
        if len(held) == 2:
            both.set()
        if num_bytes == 100:
            both.wait(SECONDS)
        held.pop(threading.get_ident())

    ahead.load(read, [100, 100, 100, 300, 100, 400, 20])
    assert max(size for size in most if size < 300) <= 250
    assert 200 in most
    assert {size for size in most if size >= 300} == {300, 400}


def test_an_error_is_raised_when_every_thread_has_ended() -> None:
    """The others finish what they have begun, and begin nothing more."""
    begun = []

    def fail(item: int) -> None:
        begun.append(item)
        if item == 1:
            raise CheckpointError("a disk failed")

    before = threading.active_count()
    with pytest.raises(CheckpointError, match="a disk failed"):
        ReadAhead(CPU).load(fail, range(10_000))
    assert threading.active_count() == before
    assert len(begun) < 10_000


def test_without_threads_the_calling_one_loads_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the number of threads makes a load slower, and does not end it."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert ReadAhead(CPU).load(str, [1, 2, 3]) == ["1", "2", "3"]


def test_a_file_that_fails_while_it_is_read_ahead_is_named(tmp_path: Path) -> None:
    """A file that became shorter after its header was read ends the load with its one line, and all its threads."""
    path = write_checkpoint(tmp_path, build_model("7b-odd", num_hidden_layers=6))
    file, before = path / "model.safetensors", threading.active_count()
    original = SafetensorsFile._read_header

    def shorten(self: SafetensorsFile) -> object:
        tensors = original(self)
        last = max(info.offset for name, info in tensors.items() if ".h.3." in name)
        with file.open("r+b") as opened:
            opened.truncate(last)
        return tensors

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SafetensorsFile, "_read_header", shorten)
        assert failure(path) == f"{file} ended early: it was changed while it was read"
    assert threading.active_count() == before


def packed(model: Falcon) -> list[torch.Tensor]:
    """The packed weights of every block."""
    blocks = [block for block in model.blocks if isinstance(block, SplitBlock)]
    linears = [linear for block in blocks for linear in (block.qkv, block.up, block.dense, block.down)]
    return [linear.packed for linear in linears if isinstance(linear, NativeLinear)]


@native
@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_threads_change_no_byte(quantize: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights loaded by several threads are those that one loads."""
    path = write_checkpoint(tmp_path, build_model("7b", torch.bfloat16, num_hidden_layers=6))
    context = model_context(torch.bfloat16, quantize=quantize)
    by_threads = packed(load(path, context))
    monkeypatch.setattr(read_ahead, "NUM_THREADS", 1)
    alone = packed(load(path, context))
    assert len(by_threads) == 24
    assert all(torch.equal(one, other) for one, other in zip(by_threads, alone, strict=True))
