"""The rows that a processor is given."""

from pathlib import Path

import numpy as np
import torch

from peregrine_server.batch.batch import Batch
from peregrine_server.protocol import NewSequence, SamplingParams, Step, pack
from peregrine_server.sampling.registry import sampling_fields
from peregrine_server.sampling.rows import SampledRows
from peregrine_server.structured.masks import GrammarMasks


def test_known_tokens_are_padded_and_generated_ones_told_apart() -> None:
    """A row has the tokens up to its own length, padded with its first; those behind the prompt are generated."""
    batch = Batch(2, 16, 4, torch.device("cpu"), sampling_fields())
    sequences = [NewSequence(0, pack([5, 6, 7]), 2, SamplingParams()), NewSequence(1, pack([8]), 1, SamplingParams())]
    batch.apply(Step(0, new=sequences))
    rows = SampledRows(batch, GrammarMasks(Path(), 10, ()), np.array([0, 1, 0]), np.array([3, 1, 2]), [])
    known, is_generated = rows.known_tokens()
    assert known.tolist() == [[5, 6, 7], [8, 8, 8], [5, 6, 5]]
    assert is_generated.tolist() == [[False, False, True], [False, False, False], [False, False, False]]


def test_values_are_a_column_of_each_rows_parameter() -> None:
    """[R, 1], so that they broadcast over the vocabulary."""
    batch = Batch(2, 16, 4, torch.device("cpu"), sampling_fields())
    params = [SamplingParams(top_k=3), SamplingParams(top_k=5)]
    batch.apply(Step(0, new=[NewSequence(slot, pack([1]), 1, each) for slot, each in enumerate(params)]))
    rows = SampledRows(batch, GrammarMasks(Path(), 10, ()), np.array([1, 0]), np.array([1, 1]), [])
    assert rows.values("top_k").tolist() == [[5], [3]]
