"""Which messages are reduced in one shot, and how a machine is found not to be able to."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from peregrine_server.distributed.one_shot_all_reduce import MAX_BYTES, is_eligible, one_shot_all_reduce_or_none
from peregrine_server.distributed.tensor_parallel import TensorParallel


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (torch.zeros(1, 4544, dtype=torch.bfloat16), True),
        (torch.zeros(16, 8192, dtype=torch.bfloat16), True),
        (torch.zeros(17, 8192, dtype=torch.bfloat16), False),
        (torch.zeros(MAX_BYTES // 4), True),
        (torch.zeros(1, 4544, dtype=torch.float16), False),
        (torch.zeros(0, 4544, dtype=torch.bfloat16), False),
        (torch.zeros(7, dtype=torch.bfloat16), False),
        (torch.zeros(8, 64)[:, :32], False),
    ],
)
def test_what_fits(x: Tensor, expected: bool) -> None:
    """Up to 256 KiB of bfloat16 or float32, contiguous, in units of 16 bytes."""
    assert is_eligible(x) is expected


def test_small_messages_go_one_way_and_others_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group with a one-shot reduction uses it for what is_eligible, and the library for what does not."""
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(dist, "all_reduce", lambda x: calls.append(("library", x.numel())))
    group = TensorParallel(0, 2, lambda x: calls.append(("one shot", x.numel())))  # type: ignore[arg-type]
    group.all_reduce(torch.zeros(64))
    group.all_reduce(torch.zeros(MAX_BYTES))
    assert calls == [("one shot", 64), ("library", MAX_BYTES)]


def test_a_machine_without_peer_access_has_none() -> None:
    """Here, on a CPU, torch's symmetric memory fails; the group goes on without."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert one_shot_all_reduce_or_none(torch.device("cpu")) is None
        x = torch.ones(2)
        dist.all_reduce(x)
        assert x.tolist() == [1.0, 1.0]
    finally:
        dist.destroy_process_group()
