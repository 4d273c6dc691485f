"""Copies of sampled tokens to the host."""

import numpy as np
import torch

from peregrine_server.protocol import SequenceFailed
from peregrine_server.sampling.host_copy import DeviceToHostCopier
from peregrine_server.sampling.sampled import Sampled

SAMPLED = Sampled(
    torch.tensor([5, 6, 7, 8]),
    torch.tensor([0.1, 0.2, 0.3, 0.4]),
    tuple((row, torch.tensor([row]), torch.tensor([float(row)])) for row in (1, 2, 3)),
    (SequenceFailed(0, "no"),),
    torch.tensor([1.0, 2.0, 3.0, 4.0]),
)


def test_on_a_cpu_a_copy_is_done_at_once() -> None:
    """The tensors are on the host already."""
    copy = DeviceToHostCopier(torch.device("cpu")).start(SAMPLED)
    assert copy.is_done
    assert copy.wait() is SAMPLED


def test_selected_rows_keep_their_log_probabilities_and_likeliest_tokens() -> None:
    """Rows of the likeliest tokens are renumbered; those of other rows are dropped."""
    selected = DeviceToHostCopier(torch.device("cpu")).start(SAMPLED).select(np.array([0, 1, 3])).wait()
    assert selected.token_ids.tolist() == [5, 6, 8]
    assert selected.logprobs is not None
    assert torch.equal(selected.logprobs, torch.tensor([0.1, 0.2, 0.4]))
    assert selected.scores is not None
    assert selected.scores.tolist() == [1.0, 2.0, 4.0]
    assert [(row, ids.tolist()) for row, ids, _ in selected.top] == [(1, [1]), (2, [3])]
    assert selected.failed == SAMPLED.failed
