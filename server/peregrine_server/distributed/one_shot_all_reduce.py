"""All-reduce of small messages in one shot: every rank reads all the others' memory and adds in rank order.

A decode's all-reduce is a few KiB, of which NCCL's rings and trees wait out the latency several times over. torch's
symmetric memory maps each rank's buffer into all processes; where it cannot (no peer access), NCCL does everything.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

MAX_BYTES = 256 * 2**10
"""Above it, reading everybody's message costs more than NCCL's steps; 28 rows of Falcon-7B, 16 of 40B."""
ALIGNMENT = 16
DTYPES = (torch.bfloat16, torch.float32)
"""Those that torch's kernel adds."""


class OneShotAllReduce:
    """The buffer of one rank of the default group."""

    def __init__(self, buffer: Tensor, group: str) -> None:
        """`buffer`: MAX_BYTES of symmetric memory, met by every rank."""
        self._buffers = {dtype: buffer.view(dtype) for dtype in DTYPES}
        self._group = group

    def __call__(self, x: Tensor) -> None:
        """x, which `is_eligible`, becomes the sum of every rank's x."""
        buffer = self._buffers[x.dtype]
        x.copy_(torch.ops.symm_mem.one_shot_all_reduce_copy(buffer, x, "sum", self._group))


def is_eligible(x: Tensor) -> bool:
    """Whether x is small, of a type that is added, and whole in units of a 128-bit load."""
    size = x.numel() * x.itemsize
    return x.dtype in DTYPES and x.is_contiguous() and 0 < size <= MAX_BYTES and size % ALIGNMENT == 0


def one_shot_all_reduce_or_none(device: torch.device) -> OneShotAllReduce | None:
    """For the default group, on every rank or on none: where it works, and adds as NCCL does."""
    try:
        one_shot = _rendezvous(device)
        works = one_shot is not None and _self_test(one_shot, device)
    except (RuntimeError, ImportError, AttributeError):
        # torch's symmetric memory is young, and fails in as many ways as there are machines.
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
    """Whether small integers, whose sums are exact in any order, are summed as they should be."""
    rank, size = dist.get_rank(), dist.get_world_size()
    for dtype in DTYPES:
        x = torch.arange(1024, device=device).remainder(7).to(dtype) + rank
        reduce(x)
        expected = size * torch.arange(1024, device=device).remainder(7) + size * (size - 1) // 2
        if not torch.equal(x, expected.to(dtype)):
            return False
    return True
