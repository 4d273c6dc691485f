"""The sampling fields that a step's slots use."""

import numpy as np

from peregrine_server.batch.slot_parameters import SlotParameters
from peregrine_server.protocol import SamplingParams
from peregrine_server.sampling.registry import sampling_fields


def test_parameters_that_are_off_are_not_looked_at() -> None:
    """A greedy batch names no parameter in use, whatever seeds and end tokens its sequences carry."""
    parameters = SlotParameters(3, sampling_fields())
    parameters[1] = SamplingParams(seed=5, end_token_ids=(7, 11), prompt_logprobs=True)
    assert parameters.used(np.arange(3)) == {}
    parameters[2] = SamplingParams(top_p=0.5)
    used = parameters.used(np.array([2, 0]))
    assert {name: rows.tolist() for name, rows in used.items()} == {"top_p": [0]}


def test_prompt_logprobs_are_asked_for_by_row() -> None:
    """The rows are indices into the slots given, and no sampling field is used by asking."""
    parameters = SlotParameters(3, sampling_fields())
    parameters[1] = SamplingParams(prompt_logprobs=True)
    assert parameters.wants_prompt_logprobs(np.array([2, 1, 0, 1])).tolist() == [1, 3]


def test_a_slot_that_is_taken_again_forgets_its_parameters() -> None:
    """The next sequence uses only what it asks for itself."""
    parameters = SlotParameters(1, sampling_fields())
    parameters[0] = SamplingParams(do_sample=True, temperature=0.5, top_k=4, seed=9)
    parameters[0] = SamplingParams()
    assert parameters.used(np.array([0])) == {}
    assert parameters.thresholds[:, 0].tolist() == [1.0, 2**31 - 1, 1.0]
