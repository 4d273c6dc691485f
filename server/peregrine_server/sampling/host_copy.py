"""What was sampled on its way to the host, while the device goes on with the next step."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peregrine_server.sampling.sampled import Sampled


class DeviceToHostCopier:
    """Copies what one device samples, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if is_cuda else None  # type: ignore[no-untyped-call]

    def start(self, sampled: Sampled) -> "PendingCopy":
        """Queues the copies behind what the device has been told so far. On a CPU there is nothing to copy."""
        stream = self._stream
        if stream is None:
            return PendingCopy(sampled, None)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            host = replace(
                sampled,
                token_ids=_pinned(sampled.token_ids, stream),
                logprobs=None if sampled.logprobs is None else _pinned(sampled.logprobs, stream),
                top=tuple((row, _pinned(ids, stream), _pinned(values, stream)) for row, ids, values in sampled.top),
            )
            copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            copied.record()
        return PendingCopy(host, copied)


@dataclass(frozen=True, slots=True)
class PendingCopy:
    """Host tensors, and when they are filled."""

    sampled: Sampled
    copied: torch.cuda.Event | None

    @property
    def is_done(self) -> bool:
        return self.copied is None or bool(self.copied.query())  # type: ignore[no-untyped-call]

    def of(self, rows: NDArray[np.intp]) -> "PendingCopy":
        """Of these rows alone, ascending, once they are here."""
        whole, at = self.wait(), torch.from_numpy(rows)
        row_of = {row: i for i, row in enumerate(rows.tolist())}
        some = replace(
            whole,
            token_ids=whole.token_ids[at],
            logprobs=None if whole.logprobs is None else whole.logprobs[at],
            top=tuple((row_of[row], ids, values) for row, ids, values in whole.top if row in row_of),
        )
        return PendingCopy(some, self.copied)

    def wait(self) -> Sampled:
        """The host's copy, once it is whole. Later steps go on meanwhile."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.sampled


def _pinned(x: Tensor, stream: torch.cuda.Stream) -> Tensor:
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    # Its memory may be given to a later step's tensor only once the copy has read it.
    x.record_stream(stream)
    return host
