"""Host arrays as device tensors."""

import numpy as np
import torch

from peregrine_server.batch.transfer import to_device


def test_on_a_cpu_nothing_is_copied() -> None:
    """The tensor is a view of the array."""
    array = np.arange(4)
    to_device(array, torch.device("cpu"))[0] = 9
    assert array[0] == 9


def test_an_array_need_not_be_contiguous() -> None:
    """Columns and transposed arrays keep their values."""
    array = np.arange(6).reshape(2, 3)
    assert to_device(array.T, torch.device("cpu")).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert to_device(array[:, 1], torch.device("cpu")).tolist() == [1, 4]
