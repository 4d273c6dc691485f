"""The messages that are reduced in one shot, and the fallback where a machine cannot."""

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
def test_eligible_messages(x: Tensor, expected: bool) -> None:
    """Up to 256 KiB of bfloat16 or float32, contiguous, in units of 16 bytes."""
    assert is_eligible(x) is expected


def test_eligible_messages_are_reduced_in_one_shot_and_others_by_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group with a one-shot all-reduce uses it for eligible messages alone."""
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(dist, "all_reduce", lambda x: calls.append(("library", x.numel())))
    group = TensorParallel(0, 2, lambda x: calls.append(("one shot", x.numel())))  # type: ignore[arg-type]
    group.all_reduce(torch.zeros(64))
    group.all_reduce(torch.zeros(MAX_BYTES))
    assert calls == [("one shot", 64), ("library", MAX_BYTES)]


def test_without_peer_access_there_is_no_one_shot_all_reduce() -> None:
    """On a CPU torch's symmetric memory fails, and the group's other collectives still work."""
    store = dist.HashStore()  # type: ignore[attr-defined]  # not in its __all__
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert one_shot_all_reduce_or_none(torch.device("cpu")) is None
        x = torch.ones(2)
        dist.all_reduce(x)
        assert x.tolist() == [1.0, 1.0]
    finally:
        dist.destroy_process_group()
