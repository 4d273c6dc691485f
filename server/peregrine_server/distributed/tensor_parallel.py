"""Tensor parallelism: the collectives of one group of ranks."""

from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from peregrine_server.distributed.one_shot_all_reduce import OneShotAllReduce, is_eligible, one_shot_all_reduce_or_none
from peregrine_server.distributed.rendezvous import Rendezvous


class TensorParallel:
    """One rank of a group. Every rank must call the same collectives in the same order."""

    def __init__(self, rank: int = 0, size: int = 1, one_shot: OneShotAllReduce | None = None) -> None:
        """Creates a group of one, whose collectives do nothing; `join` creates larger ones."""
        self.rank = rank
        self.size = size
        self._one_shot = one_shot

    @staticmethod
    def join(
        rank: int, size: int, device: torch.device, rendezvous: Rendezvous, timeout: timedelta = timedelta(minutes=5)
    ) -> "TensorParallel":
        """Joins the other ranks.

        The backend is gloo on a CPU and NCCL on CUDA, on one machine with the one-shot all-reduce for small messages
        where it works.
        Raises RuntimeError if a rank does not join, or does not join a later collective, within `timeout`.
        """
        if size > 1:
            rendezvous.use_interface()
            store = rendezvous.store(rank, size, timeout)
            backend, device_id = ("nccl", device) if device.type == "cuda" else ("gloo", None)
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=size, timeout=timeout, device_id=device_id
            )
        can_map = size > 1 and device.type == "cuda" and rendezvous.is_of_one_machine
        one_shot = one_shot_all_reduce_or_none(device) if can_map else None
        return TensorParallel(rank, size, one_shot)

    def all_reduce(self, x: Tensor) -> None:
        """Sums x over the ranks, in place. x is contiguous and has the same shape on every rank."""
        if self._one_shot is not None and is_eligible(x):
            self._one_shot(x)
        elif self.size > 1:
            dist.all_reduce(x)

    def all_gather(self, x: Tensor) -> Tensor:
        """Concatenates x [T, N] of every rank along the last dimension, in rank order: [T, size * N]."""
        if self.size == 1:
            return x
        parts = x.new_empty((self.size * x.shape[0], x.shape[1]))
        dist.all_gather_single(parts, x.contiguous())
        return parts.view(self.size, *x.shape).transpose(0, 1).reshape(len(x), -1)

    def close(self) -> None:
        """Leaves the group."""
        if self.size > 1:
            dist.destroy_process_group()
