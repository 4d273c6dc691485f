"""A model whose numbers overflow for one sequence: it fails, and harms no other, then or later."""

from pathlib import Path

import pytest
import torch

from checkpoints import build_model, write_checkpoint
from fake_shards import submit
from peregrine_kernels import KVCache
from peregrine_router.request import Request, SamplingParams
from peregrine_server.execution.pending_step import NOT_FINITE
from runners import generated, load_runner, make_scheduler, run

POISON = 7
"""Token whose embedding is no number."""

pytestmark = pytest.mark.slow


def request(name: str, *ids: int, drawn: bool = False) -> Request:
    return Request(name, ids, SamplingParams(do_sample=drawn, seed=3), 12)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    falcon = build_model("11b")
    with torch.no_grad():
        falcon.transformer.word_embeddings.weight[POISON] = torch.nan
    return write_checkpoint(tmp_path_factory.mktemp("poisoned"), falcon)


@pytest.mark.parametrize("drawn", [False, True], ids=["greedy", "drawn"])
@pytest.mark.parametrize(("backend", "dtype"), [("cpu", "bfloat16"), ("cpu", "float32"), ("reference", "float32")])
def test_a_sequence_of_no_numbers_harms_no_other(
    backend: str, dtype: str, drawn: bool, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside it the others have their tokens, and so have those that get its blocks, or its slot, after it."""
    monkeypatch.setenv("PEREGRINE_BACKEND", backend)
    runner = load_runner(model, max_batch_total_tokens=96, max_batch_size=2, dtype=dtype)
    good, bad = request("good", 1, 2, 3, drawn=drawn), request("bad", 1, POISON, *range(20, 50), drawn=drawn)
    alone = generated(run(runner, make_scheduler(12, max_batch_size=2), [good])[0])
    scheduler = make_scheduler(12, max_step_tokens=64, max_batch_size=2)
    sequences = [submit(scheduler, each) for each in (good, bad)]
    failed: set[int] = set()
    while (step := scheduler.schedule()) is not None:
        result = runner.execute(step)
        scheduler.commit(result)
        failed |= {failure.slot for failure in result.failed if failure.message == NOT_FINITE}
        if result.failed:
            scheduler.cancel(sequences[1])
    assert failed == {1}
    assert generated(sequences[0]) == alone
    _fill_with_nan(runner._cache)
    again = run(runner, make_scheduler(12, max_batch_size=2), [request("again", 1, 2, 3, drawn=drawn)])
    assert generated(again[0]) == alone


def _fill_with_nan(cache: object) -> None:
    """Memory as it is after many such sequences."""
    assert isinstance(cache, KVCache)
    for layer in cache.layers:
        layer.fill_(torch.nan)
