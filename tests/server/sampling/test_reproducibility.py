"""The same seed gives the same text: alone, in a batch of 32, after preemption, and on two shards (float32)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from peregrine_router.launch.model_files import demo_path
from peregrine_router.request import Request, SamplingParams
from peregrine_server.execution.runner import Runner
from peregrine_server.protocol import Grammar
from runners import generated, load_runner, make_scheduler, run

pytestmark = pytest.mark.slow

PROCESS = Path(__file__).with_name("runner_process.py")
EOS = 0
CONFIG: dict[str, Any] = {
    "max_batch_size": 32,
    "max_total_tokens": 96,
    "max_batch_total_tokens": 384 * 8,
    "eos_token_ids": (EOS,),
}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"top_k": 20, "repetition_penalty": 1.2},
    {"top_p": 0.9, "frequency_penalty": 0.5, "presence_penalty": 0.5},
    {"min_p": 0.02, "watermark": True},
    {"typical_p": 0.9, "logit_bias": ((300, 3.0), (301, -3.0))},
    {"min_tokens": 8, "end_token_ids": (EOS,)},
    {"grammar": Grammar("regex", "([a-z]{2,9} ){3,20}")},
]


def make_requests() -> list[Request]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 50, (32,), generator=generator).tolist()
    prompts = [tuple(torch.randint(1, 4096, (length,), generator=generator).tolist()) for length in lengths]
    return [
        Request(str(i), prompt, SamplingParams(do_sample=True, seed=1000 + i, **SETTINGS[i % len(SETTINGS)]), 30)
        for i, prompt in enumerate(prompts)
    ]


REQUESTS = make_requests()


@pytest.fixture(scope="module")
def runner() -> Runner:
    return load_runner(demo_path(), **CONFIG)


@pytest.fixture(scope="module")
def crowd(runner: Runner) -> list[list[int]]:
    """The tokens of all 32 in one batch."""
    scheduler = make_scheduler(num_blocks=384, max_batch_size=32, eos=frozenset({EOS}))
    return [generated(sequence) for sequence in run(runner, scheduler, REQUESTS)]


def test_alone(runner: Runner, crowd: list[list[int]]) -> None:
    """Each request by itself has the same tokens, whatever its parameters."""
    for request, tokens in zip(REQUESTS[: 2 * len(SETTINGS)], crowd, strict=False):
        (sequence,) = run(runner, make_scheduler(eos=frozenset({EOS})), [request])
        assert generated(sequence) == tokens


def test_after_preemption(runner: Runner, crowd: list[list[int]]) -> None:
    """With a cache too small for all, preempted requests have the same tokens, and a grammar resumes."""
    scheduler = make_scheduler(num_blocks=14, max_batch_size=32, eos=frozenset({EOS}))
    sequences = run(runner, scheduler, REQUESTS, every=1)
    assert [generated(sequence) for sequence in sequences] == crowd
    assert scheduler.num_preemptions >= 10


def test_on_two_shards(crowd: list[list[int]], tmp_path: Path) -> None:
    """Both ranks draw the tokens that one rank draws."""
    requests = [(request.prompt_ids, request.sampling, request.max_new_tokens) for request in REQUESTS]
    path = os.pathsep.join([str(PROCESS.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment, ranks = {**os.environ, "PYTHONPATH": path}, []
    for rank in range(2):
        config = {**CONFIG, "rank": rank, "num_shards": 2, "rendezvous": str(tmp_path / "rendezvous")}
        job = {"path": str(demo_path()), "config": config, "requests": requests}
        command = [sys.executable, str(PROCESS), msgspec.json.encode(job).decode()]
        ranks.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
    outputs = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    assert [json.loads(output) for output in outputs] == [crowd, crowd]
