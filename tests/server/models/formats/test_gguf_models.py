"""GGUF files on one, two and three shards, in real processes: the tokens of transformers' model of the values that the
blocks stand for."""

from typing import Any

import pytest
import torch
from transformers import FalconForCausalLM

from fakes import train_backend
from falcon_groups import Result, run_group
from gguf_checkpoints import MIXES, write_gguf
from peregrine_router.launch.gguf_folder import make_folder

pytestmark = pytest.mark.slow

CASES = [
    *(("7b", name) for name in ("F16", "Q8_0", "Q4_0", "Q4_K_M of 7B", "Q4_K and Q4_0", "F32 and Q4_0")),
    *(("40b", name) for name in ("Q4_0", "Q4_1", "Q4_K_M of 40B", "IQ4_NL")),
    *(("11b", name) for name in ("Q4_K and Q4_0", "IQ4_NL")),
]
SIZES = [1, 2, 3]
BACKENDS = ["reference", "torch"]
"""The reference's output linears are one, of two tensors side by side; torch's are two."""
PROMPT = torch.randint(257, (12,), generator=torch.Generator().manual_seed(0)).tolist()
NUM_GENERATED = 4

Results = dict[tuple[int, str, str, str], Result]
"""By size of the group, backend, variant and mix of types, the result of rank 0."""


@pytest.fixture(scope="module")
def oracles() -> dict[tuple[str, str], FalconForCausalLM]:
    return {}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, oracles: dict[tuple[str, str], FalconForCausalLM]) -> Results:
    """Every group runs every case in one life of its processes."""
    root = tmp_path_factory.mktemp("files")
    work = {"dtype": "float32", "schedules": ["whole"], "prompts": [PROMPT], "num_generated": NUM_GENERATED}
    cases: dict[tuple[str, str, str], dict[str, Any]] = {}
    for variant, name in CASES:
        file = root / f"{variant} {name}.gguf"
        oracles[variant, name] = write_gguf(file, variant, MIXES[name], tokenizer=train_backend())
        folder = str(make_folder(file))
        cases |= {(backend, variant, name): {**work, "path": folder, "backend": backend} for backend in BACKENDS}
    found: Results = {}
    for size in SIZES:
        first = run_group(tmp_path_factory.mktemp("group"), size, list(cases.values()))[0]
        found |= {(size, *key): result for key, result in zip(cases, first, strict=True)}
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("variant", "name"), CASES)
@torch.inference_mode()
def test_gguf_files(
    variant: str,
    name: str,
    backend: str,
    size: int,
    results: Results,
    oracles: dict[tuple[str, str], FalconForCausalLM],
) -> None:
    """Tokens are the model's greedy ones, logits its to 1e-4, however blocks are cut."""
    result = results[size, backend, variant, name]
    (tokens,), (logits,) = result["whole"]["tokens"], result["whole"]["logits"]
    expected = oracles[variant, name](torch.tensor([tokens])).logits[0].float()
    assert tokens[len(PROMPT) :] == expected[len(PROMPT) - 1 : -1].argmax(-1).tolist()
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
