"""The registry of logits processors: complete, and all that a new sampling parameter needs."""

from collections import Counter

import msgspec
import pytest
import torch

from fake_shards import submit
from peregrine_router.launch.model_files import demo_path
from peregrine_router.request import Request
from peregrine_server.execution.runner import Runner
from peregrine_server.protocol import SamplingParams
from peregrine_server.sampling.processors import NEVER
from peregrine_server.sampling.registry import (
    OTHER_FIELDS,
    PROCESSORS,
    SAMPLER_FIELDS,
    Processor,
    fused_fields,
    sampling_fields,
)
from peregrine_server.sampling.rows import SampledRows
from runners import generated, load_runner, make_scheduler, shard_config

PROMPT = tuple(range(5, 15))


class ToyParams(SamplingParams, frozen=True, array_like=True, kw_only=True):
    """A sampling parameter more than there is."""

    forbidden: int = -1


def forbid_one(scores: torch.Tensor, rows: SampledRows) -> torch.Tensor:
    return scores.scatter(-1, rows.values("forbidden"), NEVER)


TOY = Processor(("forbidden",), forbid_one)


def test_every_field_is_in_exactly_one_registry() -> None:
    """A field of SamplingParams turns on one processor, or is named as one that turns on none."""
    fields = Counter([*sampling_fields(PROCESSORS), *OTHER_FIELDS])
    assert fields == Counter(field.name for field in msgspec.structs.fields(SamplingParams))


def test_the_fused_kernel_knows_its_processors_and_the_draw() -> None:
    """A field that it does not know keeps a step from being sampled by it."""
    assert fused_fields() == {"temperature", "top_k", "top_p", "do_sample", "logprobs"}
    assert set(SAMPLER_FIELDS) - fused_fields() == {"top_n_tokens"}
    assert "forbidden" not in fused_fields([*PROCESSORS, TOY])


def tokens(runner: Runner, params: list[SamplingParams]) -> list[list[int]]:
    """The tokens of a batch, one sequence for each of the parameters."""
    scheduler = make_scheduler()
    sequences = [submit(scheduler, Request(str(i), PROMPT, each, 12)) for i, each in enumerate(params)]
    while (step := scheduler.schedule()) is not None:
        scheduler.commit(runner.execute(step))
    return [generated(sequence) for sequence in sequences]


@pytest.mark.parametrize("position", [0, len(PROCESSORS)])
def test_a_new_parameter_is_one_row_and_one_function(position: int) -> None:
    """A runner with a processor more, first or last, applies it to the sequence that asks for it and to no other."""
    loaded = load_runner(demo_path())
    (plain,) = tokens(loaded, [SamplingParams()])
    processors = (*PROCESSORS[:position], TOY, *PROCESSORS[position:])
    runner = Runner(shard_config(demo_path()), loaded.model, processors=processors)
    first, second = plain[0], next(token for token in plain if token != plain[0])
    one, other, neighbour = tokens(runner, [ToyParams(forbidden=first), ToyParams(forbidden=second), ToyParams()])
    assert first not in one
    assert second not in other
    assert neighbour == plain
    assert other[0] == first
