"""The model and the whole server on CUDA, against transformers and against themselves without graphs."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from checkpoints import VARIANTS, build_model, write_checkpoint
from falcons import forward, load, model_context
from paged_cases import page_batch, slot_rows
from peregrine_kernels import PagedBatch
from peregrine_server.execution.cuda_graphs import CudaGraphCapturer, DecodeGraphs, capture_sizes
from peregrine_server.models.layers.copies import bytes_per_second
from peregrine_server.models.layers.offloaded import OffloadedLayers
from serving import ServerProcess, write_model

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_logits_of_a_whole_prompt(device: torch.device, tmp_path: Path, variant: str) -> None:
    """In float32, without TF32, those of transformers to 1e-4."""
    oracle = build_model(variant)
    path = write_checkpoint(tmp_path / "falcon", oracle)
    model = load(path, model_context(torch.float32, device=device))
    tokens = torch.randint(257, (50,))
    batch, num_blocks = page_batch([(50, 50)], 16)
    kv = model.allocate_cache(num_blocks, 16)
    on_gpu = type(batch)(
        batch.positions.to(device), batch.slot_mapping.to(device), batch.block_tables.to(device), (50,), (50,), 0
    )
    logits = model.logits(forward(model, tokens.to(device), on_gpu, kv))
    torch.testing.assert_close(logits.cpu(), oracle(tokens[None]).logits[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("quantize", [None, "int4"])
@torch.inference_mode()
def test_weights_on_the_host_arrive_in_time(device: torch.device, tmp_path: Path, quantize: str | None) -> None:
    """Ten prompts one after the other, without waiting: the logits of a model that is all on the device, to the bit."""
    path = write_checkpoint(tmp_path / "falcon", build_model("11b", torch.bfloat16, num_hidden_layers=9))
    context = model_context(torch.bfloat16, device=device, quantize=quantize)
    whole, offloaded = (load(path, replace(context, offload_bytes=size)) for size in (0, 2**40))
    assert isinstance(offloaded.blocks, OffloadedLayers)
    tokens, positions = torch.randint(257, (10, 50), device=device), torch.arange(50, device=device)
    tables = torch.zeros(1, 1, dtype=torch.int64, device=device)
    found = []
    for model in (whole, offloaded):
        kv = model.allocate_cache(1, 64)
        batches = [PagedBatch(positions, positions, tables, (50,), (50,), 0) for _ in tokens]
        found.append(
            torch.stack([model.logits(forward(model, *each, kv)) for each in zip(tokens, batches, strict=True)])
        )
    assert torch.equal(*found)
    assert bytes_per_second(device, 2**26) > 1e9


@torch.inference_mode()
def test_a_graph_replays_the_step(device: torch.device, tmp_path: Path) -> None:
    """Captured on padding, replayed on ragged batches of every size: the eager step's logits to the bit."""
    oracle = build_model("7b", torch.bfloat16)
    path = write_checkpoint(tmp_path / "falcon", oracle)
    model = load(path, model_context(torch.bfloat16, device=device))
    kv = model.allocate_cache(400, 16)
    for pages in kv.layers:
        pages.normal_()
    graphs = DecodeGraphs(model, kv, capture_sizes(8), 2048, 16, CudaGraphCapturer())
    for contexts in ([700, 3, 17, 8, 9], [5, 1400, 33], [1], [100] * 8):
        batch, _ = page_batch([(1, context) for context in contexts], 16)
        batch = type(batch)(
            batch.positions.to(device),
            batch.slot_mapping.to(device),
            batch.block_tables.to(device),
            batch.query_lengths,
            batch.context_lengths,
            batch.num_decodes,
        )
        token_ids = torch.randint(257, (len(contexts),), device=device)
        replayed = graphs(slot_rows(token_ids, batch, 16)).clone()
        eager = model.logits(forward(model, token_ids, batch, kv))
        # cuBLAS may choose another algorithm for the padded number of rows.
        torch.testing.assert_close(replayed, eager, rtol=2e-2, atol=2e-2)


@torch.inference_mode()
def test_the_server_gives_the_tokens_of_transformers(device: torch.device, tmp_path: Path) -> None:
    """Ragged concurrent requests over HTTP, in float32: chunks, graphs, copies beside the next step."""
    options = ("--model-id", str(write_model(tmp_path)), "--dtype", "float32", "--device", "cuda")
    prompts = ["x" * (1 + 13 * i) for i in range(12)]
    answers = [""] * len(prompts)
    with ServerProcess(*options, "--max-batch-prefill-tokens", "64") as server:

        def run(index: int) -> None:
            response = server.generate(prompts[index], max_new_tokens=12, ignore_eos=True)
            answers[index] = response.json()["generated_text"]

        threads = [threading.Thread(target=run, args=(index,)) for index in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    oracle = build_model("7b", vocab_size=256, eos_token_id=255, bos_token_id=255)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens = tokenizer.encode(prompt).ids
        for _ in range(12):
            tokens.append(int(oracle(torch.tensor([tokens])).logits[0, -1].argmax()))
        assert answer == tokenizer.decode(tokens[-12:])
