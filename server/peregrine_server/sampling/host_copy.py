"""Copies of sampled tokens from the device to the host, while the device goes on with the next step."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peregrine_server.sampling.sampled import Sampled


class DeviceToHostCopier:
    """Copies what one device samples, on a CUDA stream of its own."""

    def __init__(self, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if is_cuda else None

    def start(self, sampled: Sampled) -> "PendingCopy":
        """Queues copies behind the work that the current stream has queued. On a CPU there is nothing to copy."""
        stream = self._stream
        if stream is None:
            return PendingCopy(sampled, None)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            host = replace(
                sampled,
                token_ids=_to_pinned(sampled.token_ids, stream),
                logprobs=None if sampled.logprobs is None else _to_pinned(sampled.logprobs, stream),
                scores=None if sampled.scores is None else _to_pinned(sampled.scores, stream),
                top=tuple(
                    (row, _to_pinned(ids, stream), _to_pinned(values, stream)) for row, ids, values in sampled.top
                ),
            )
            copied = torch.cuda.Event(blocking=True)
            copied.record()
        return PendingCopy(host, copied)


@dataclass(frozen=True, slots=True)
class PendingCopy:
    """Host tensors, and the event that tells when they are filled; None where they are from the start."""

    sampled: Sampled
    copied: torch.cuda.Event | None

    @property
    def is_done(self) -> bool:
        return self.copied is None or bool(self.copied.query())

    def select(self, rows: NDArray[np.intp]) -> "PendingCopy":
        """A copy of these rows alone, ascending. Waits for all of them."""
        sampled, at = self.wait(), torch.from_numpy(rows)
        row_of = {row: i for i, row in enumerate(rows.tolist())}
        selected = replace(
            sampled,
            token_ids=sampled.token_ids[at],
            logprobs=None if sampled.logprobs is None else sampled.logprobs[at],
            scores=None if sampled.scores is None else sampled.scores[at],
            top=tuple((row_of[row], ids, values) for row, ids, values in sampled.top if row in row_of),
        )
        return PendingCopy(selected, self.copied)

    def wait(self) -> Sampled:
        """Waits until the host tensors are filled. The device goes on with later steps meanwhile."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.sampled


def _to_pinned(x: Tensor, stream: torch.cuda.Stream) -> Tensor:
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    # Else the allocator might give the memory of x to a tensor of a later step before the copy has read it.
    x.record_stream(stream)
    return host
