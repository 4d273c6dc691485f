"""The tokens of slots on the host."""

import numpy as np
import torch
from numpy.typing import NDArray

from peregrine_server.sampling.host_copy import PendingCopy
from peregrine_server.sampling.sampled import Sampled
from peregrine_server.speculation.token_mirror import HostTokenMirror


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def copying(*token_ids: int) -> PendingCopy:
    return PendingCopy(Sampled(torch.tensor(token_ids)), None)


def test_a_copy_has_what_was_added_forked_and_sampled() -> None:
    """As the batch on the device has it, which is not read."""
    mirror = HostTokenMirror(torch.zeros(3, 8, dtype=torch.int64), is_copy=True)
    mirror.add(0, ints(1, 2, 3))
    mirror.fork(2, 0, 3)
    mirror.note(ints(0, 2), ints(3, 3), copying(4, 5))
    mirror.note(ints(2), ints(4), copying(6))
    mirror.wait()
    assert mirror.of(0, 4).tolist() == [1, 2, 3, 4]
    assert mirror.of(2, 5).tolist() == [1, 2, 3, 5, 6]


def test_tokens_of_who_left_do_not_reach_who_came() -> None:
    """What was sampled for the last sequence of a slot is not read as the next one's."""
    mirror = HostTokenMirror(torch.zeros(2, 8, dtype=torch.int64), is_copy=True)
    mirror.add(0, ints(1, 2, 3))
    mirror.note(ints(0, 1), ints(3, 3), copying(9, 8))
    mirror.add(0, ints(5, 6, 7, 5))
    mirror.wait()
    assert mirror.of(0, 4).tolist() == [5, 6, 7, 5]
    assert mirror.of(1, 4).tolist() == [0, 0, 0, 8]


def test_on_a_cpu_they_are_the_batchs_own() -> None:
    """Nothing is copied: what the batch has, is there."""
    token_ids = torch.zeros(2, 8, dtype=torch.int64)
    mirror = HostTokenMirror(token_ids, is_copy=False)
    mirror.note(ints(0), ints(0), copying(9))
    token_ids[1, :3] = torch.tensor([4, 5, 6])
    assert mirror.of(1, 3).tolist() == [4, 5, 6]
    assert mirror.of(0, 1).tolist() == [0]
