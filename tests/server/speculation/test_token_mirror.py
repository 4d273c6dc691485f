"""The host mirror of the slots' tokens."""

import numpy as np
import torch
from numpy.typing import NDArray

from peregrine_server.sampling.host_copy import PendingCopy
from peregrine_server.sampling.sampled import Sampled
from peregrine_server.speculation.token_mirror import HostTokenMirror


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def copied(*token_ids: int) -> PendingCopy:
    return PendingCopy(Sampled(torch.tensor(token_ids)), None)


def test_a_copy_has_what_was_added_forked_and_sampled() -> None:
    """It equals the batch on the device, which is not read."""
    mirror = HostTokenMirror(torch.zeros(3, 8, dtype=torch.int64), is_copy=True)
    mirror.add(0, ints(1, 2, 3))
    mirror.fork(2, 0, 3)
    mirror.append(ints(0, 2), ints(3, 3), copied(4, 5))
    mirror.append(ints(2), ints(4), copied(6))
    mirror.wait()
    assert mirror.tokens(0, 4).tolist() == [1, 2, 3, 4]
    assert mirror.tokens(2, 5).tolist() == [1, 2, 3, 5, 6]


def test_pending_tokens_of_a_freed_slot_are_dropped() -> None:
    """Tokens sampled for the previous sequence of a slot never appear in the next one's."""
    mirror = HostTokenMirror(torch.zeros(2, 8, dtype=torch.int64), is_copy=True)
    mirror.add(0, ints(1, 2, 3))
    mirror.append(ints(0, 1), ints(3, 3), copied(9, 8))
    mirror.add(0, ints(5, 6, 7, 5))
    mirror.wait()
    assert mirror.tokens(0, 4).tolist() == [5, 6, 7, 5]
    assert mirror.tokens(1, 4).tolist() == [0, 0, 0, 8]


def test_on_a_cpu_it_is_a_view_of_the_batch() -> None:
    """Nothing is copied: it reads the batch's tokens, and ignores those appended to it."""
    token_ids = torch.zeros(2, 8, dtype=torch.int64)
    mirror = HostTokenMirror(token_ids, is_copy=False)
    mirror.append(ints(0), ints(0), copied(9))
    token_ids[1, :3] = torch.tensor([4, 5, 6])
    assert mirror.tokens(1, 3).tolist() == [4, 5, 6]
    assert mirror.tokens(0, 1).tolist() == [0]
