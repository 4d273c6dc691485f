"""Where the ranks of a group find each other, and the network that they use."""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from peregrine_server.addresses import split_endpoint


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """A file for the ranks of one machine, or the address of a store that rank 0 serves to those of several."""

    place: str | Path
    """Path of the file, which must not be left from an earlier group, or tcp://HOST:PORT."""
    interface: str = "lo"
    """Network interface of the collectives."""
    store_fd: int | None = None
    """Rank 0 of several machines: descriptor of a socket that listens at the store's address."""

    @property
    def is_of_one_machine(self) -> bool:
        return not str(self.place).startswith("tcp://")

    def use_interface(self) -> None:
        """Makes gloo and NCCL listen on the interface alone: by default on the address that the host's name resolves
        to. Replaces values set in the environment."""
        os.environ["GLOO_SOCKET_IFNAME"] = self.interface
        os.environ["NCCL_SOCKET_IFNAME"] = f"={self.interface}"

    def store(self, rank: int, size: int, timeout: timedelta) -> Any:
        """The store through which the ranks exchange addresses; rank 0 serves it if the ranks are of several machines.

        Raises RuntimeError if it is not reached within `timeout`.
        """
        if self.is_of_one_machine:
            store = dist.FileStore(str(self.place), size)  # type: ignore[attr-defined]  # not in its __all__
            store.set_timeout(timeout)
            return store
        host, port = split_endpoint(str(self.place))
        return dist.TCPStore(  # type: ignore[attr-defined]  # not in its __all__
            host,
            port,
            size,
            is_master=rank == 0,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=self.store_fd if rank == 0 else None,
        )
