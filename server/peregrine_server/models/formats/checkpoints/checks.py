"""Checks of the small tensors beside quantized values, before a large one is read. Imports no torch until then.

Each says what is wrong and what to do, to follow the tensor's name; None: nothing is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peregrine_server.models.errors import AGAIN

if TYPE_CHECKING:
    from torch import Tensor

MAX_STATE_BYTES = 4096
"""A bound on the JSON of a weight of bitsandbytes, which has some 300."""


def fault_of_numbers(values: Tensor) -> str | None:
    """Checks that scales, or what they are made of, are finite."""
    return None if values.float().isfinite().all() else f"holds numbers that are not finite; {AGAIN}"


def fault_of_shape(shape: list[int], stored: Tensor) -> str | None:
    """Checks that a shape that is stored beside its tensor is the tensor's."""
    return None if stored.tolist() == shape else f"says {stored.tolist()}, not {shape}; {AGAIN}"


def fault_of_zeros(middle: int, num_bits: int, words: Tensor) -> str | None:
    """Checks that each zero point of symmetric weights, int32 words, is stored as `middle`."""
    word = sum(middle << at for at in range(0, 32, num_bits))
    if (words == (word ^ 2**31) - 2**31).all():
        return None
    return (
        "holds other zero points than sym and checkpoint_format say; "
        'set sym to false, or checkpoint_format to "gptq_v2", if weights are of that kind'
    )


def fault_of_groups(num_groups: int, group_size: int | None, groups: Tensor) -> str | None:
    """Checks that the group of each input, int32, is one of so many; unless `group_size` is None, of so many
    consecutive inputs."""
    import torch

    if group_size is not None and not torch.equal(groups.long(), torch.arange(len(groups)) // group_size):
        return "has inputs in another order; set desc_act to true if the weights are so"
    if groups.min() < 0 or groups.max() >= num_groups:
        return f"names groups beyond its {num_groups}; {AGAIN}"
    return None


def fault_of_row_format(value: Tensor) -> str | None:
    """Checks that bitsandbytes' number for the order of 8-bit values is 0, in rows."""
    return None if value.item() == 0 else "says that values are not in rows; give another checkpoint"


def fault_of_state(facts: Mapping[str, object], has_offset: bool, stored: Tensor) -> str | None:
    """Checks that the JSON beside a 4-bit weight of bitsandbytes, uint8[N], states the `facts`, and, with scales that
    are quantized too, a number that is added to them."""
    state = state_of(stored)
    if state is None:
        return f"is not the JSON of a weight's state; {AGAIN}"
    for key, value in facts.items():
        if state.get(key) != value:
            return f"says that {key} is {state.get(key)!r:.80}, not {value}; give another checkpoint"
    offset = state.get("nested_offset")
    if has_offset and not (isinstance(offset, float) and math.isfinite(offset)):
        return f"says that nested_offset is {offset!r:.80}, not a number; {AGAIN}"
    return None


def state_of(stored: Tensor) -> dict[str, Any] | None:
    """The JSON object in uint8[N]; None if there is none."""
    if len(stored) > MAX_STATE_BYTES:
        return None
    try:
        state = json.loads(bytes(stored.tolist()))
    except (ValueError, RecursionError):
        return None
    return state if isinstance(state, dict) else None
