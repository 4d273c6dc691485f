"""One-shot all-reduce of small messages: every rank reads all other ranks' memory and adds in rank order.

A decode's all-reduce is a few KiB, for which NCCL's rings and trees pay the latency several times. torch's symmetric
memory maps each rank's buffer into all processes; where it cannot (no peer access), NCCL reduces every message.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

MAX_BYTES = 256 * 2**10
"""Largest message in bytes: 28 rows of a 7B model, 16 of 40B in bfloat16. Above it, reading every rank's message costs
more than NCCL's steps."""
ALIGNMENT = 16
"""Bytes of the 128-bit loads of torch's kernel, which a message is a multiple of."""
DTYPES = (torch.bfloat16, torch.float32)
"""Types that torch's kernel adds."""


class OneShotAllReduce:
    """One rank's buffer in symmetric memory, for the default group."""

    def __init__(self, buffer: Tensor, group: str) -> None:
        """`buffer`: MAX_BYTES of symmetric memory, after the rendezvous of all ranks. `group`: name of the group."""
        self._buffers = {dtype: buffer.view(dtype) for dtype in DTYPES}
        self._group = group

    def __call__(self, x: Tensor) -> None:
        """Sums x over the ranks, in place. x must be eligible (see `is_eligible`)."""
        buffer = self._buffers[x.dtype]
        x.copy_(torch.ops.symm_mem.one_shot_all_reduce_copy(buffer, x, "sum", self._group))


def is_eligible(x: Tensor) -> bool:
    """Whether x can be reduced in one shot: contiguous, of DTYPES, up to MAX_BYTES and a multiple of ALIGNMENT."""
    size = x.numel() * x.itemsize
    return x.dtype in DTYPES and x.is_contiguous() and 0 < size <= MAX_BYTES and size % ALIGNMENT == 0


def one_shot_all_reduce_or_none(device: torch.device) -> OneShotAllReduce | None:
    """The default group's one-shot all-reduce, or None on every rank if it does not work on one of them.

    Every rank must call it.
    """
    try:
        one_shot = _rendezvous(device)
        works = one_shot is not None and _self_test(one_shot, device)
    except (RuntimeError, ImportError, AttributeError):
        # torch's symmetric memory is new, and how it fails differs from machine to machine.
        one_shot, works = None, False
    everywhere = torch.tensor([works], dtype=torch.int32, device=device)
    dist.all_reduce(everywhere, op=dist.ReduceOp.MIN)
    return one_shot if everywhere.item() else None


def _rendezvous(device: torch.device) -> OneShotAllReduce | None:
    from torch.distributed import _symmetric_memory as symmetric_memory

    group = dist.group.WORLD
    if group is None:
        return None
    buffer = symmetric_memory.empty(MAX_BYTES, dtype=torch.uint8, device=device)
    symmetric_memory.rendezvous(buffer, group)
    return OneShotAllReduce(buffer, group.group_name)


def _self_test(reduce: Callable[[Tensor], None], device: torch.device) -> bool:
    """Whether sums of small integers, which are exact in any order, are correct."""
    rank, size = dist.get_rank(), dist.get_world_size()
    for dtype in DTYPES:
        x = torch.arange(1024, device=device).remainder(7).to(dtype) + rank
        reduce(x)
        expected = size * torch.arange(1024, device=device).remainder(7) + size * (size - 1) // 2
        if not torch.equal(x, expected.to(dtype)):
            return False
    return True
