"""One rank of a group, run as a process: drives `Falcon.forward` by hand and saves every logit.

A job (JSON on standard input) names the rank, the group and its cases; results go to one file a rank. A case that names
`split_tokens` runs on the GPU's kernels, under Triton's interpreter, with decodes split at that size; one that names
`kv_dtype`, on 8-bit pages; one that names `backend`, on torch's or the reference's operations, with weights as
`quantize` says.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from falcons import forward, load, model_context
from peregrine_kernels import Backend, PagedBatch
from peregrine_kernels.cpu.torch_backend import TorchBackend
from peregrine_kernels.kv_cache import KV_DTYPES
from peregrine_kernels.reference.backend import ReferenceBackend
from peregrine_server.distributed.rendezvous import Rendezvous
from peregrine_server.distributed.tensor_parallel import TensorParallel
from peregrine_server.models.falcon.model import Falcon
from peregrine_server.models.registry import load_format

BLOCK_SIZE = 8
NUM_BLOCKS = 128
CACHED_PREFIXES = "cached prefixes"
"""The schedule in which sequences begin with blocks that the first one computed, and all are ragged from there on."""

Work = list[tuple[int, int]]
"""(sequence, how many of its next tokens it computes) of one step."""


def schedule(name: str, lengths: list[int]) -> Iterator[Work]:
    """The prefill of sequences of the given lengths.

    "whole": one after the other. "chunks of <n>": side by side. "ragged": side by side, the first sequence a token at
    a time, each other in larger chunks than the one before.
    """
    if name == "whole":
        yield from ([(sequence, length)] for sequence, length in enumerate(lengths))
        return
    chunks = [4 * i + 1 if name == "ragged" else int(name.removeprefix("chunks of ")) for i in range(len(lengths))]
    for start in range(max(-(-length // chunk) for length, chunk in zip(lengths, chunks, strict=True))):
        left = [(i, min(chunk, lengths[i] - start * chunk)) for i, chunk in enumerate(chunks)]
        yield sorted(((i, count) for i, count in left if count > 0), key=lambda item: item[1] != 1)


class Sequences:
    """Token ids, blocks and logits of every sequence of a case."""

    def __init__(self, model: Falcon, prompts: list[list[int]]) -> None:
        self.model = model
        self.tokens = [list(prompt) for prompt in prompts]
        self.done = [0] * len(prompts)
        self.logits: list[list[Tensor]] = [[] for _ in prompts]
        self._tables: list[list[int]] = [[] for _ in prompts]
        self._free = random.Random(0).sample(range(NUM_BLOCKS), NUM_BLOCKS)
        self._kv = model.allocate_cache(NUM_BLOCKS, BLOCK_SIZE)
        for pages in self._kv.layers:
            # NaN in every floating-point type, scales of 8-bit pages included: what no token wrote must not be read.
            torch.empty(0, dtype=torch.uint8).set_(pages.untyped_storage()).fill_(0xFF)

    def run(self, work: Work) -> None:
        """One step."""
        positions = [range(self.done[i], self.done[i] + count) for i, count in work]
        token_ids = [self.tokens[i][p] for (i, _), span in zip(work, positions, strict=True) for p in span]
        for (i, count), span in zip(work, positions, strict=True):
            while len(self._tables[i]) * BLOCK_SIZE < span.stop:
                self._tables[i].append(self._free.pop())
            self.done[i] += count
        hidden = forward(self.model, torch.tensor(token_ids), self._batch(work, positions), self._kv)
        logits = self.model.logits(hidden)
        for (i, _), rows in zip(work, torch.split(logits, [count for _, count in work]), strict=True):
            self.logits[i].append(rows)

    def share_prefixes(self) -> None:
        """The first prompt's full blocks are computed, without its last token; the others take those that they begin
        with, all but their last token."""
        self.run([(0, (len(self.tokens[0]) - 1) // BLOCK_SIZE * BLOCK_SIZE)])
        for i in range(1, len(self.tokens)):
            pairs = zip(self.tokens[0][: self.done[0]], self.tokens[i][:-1], strict=False)
            alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) // BLOCK_SIZE
            self._tables[i] = self._tables[0][:alike]
            self.done[i] = alike * BLOCK_SIZE

    def _batch(self, work: Work, positions: list[range]) -> PagedBatch:
        tables = [self._tables[i] for i, _ in work]
        width = max(map(len, tables))
        spans = list(zip(tables, positions, strict=True))
        slots = [table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for table, span in spans for p in span]
        counts = tuple(count for _, count in work)
        return PagedBatch(
            positions=torch.tensor([p for span in positions for p in span]),
            slot_mapping=torch.tensor(slots),
            block_tables=torch.tensor([table + [0] * (width - len(table)) for table in tables]),
            query_lengths=counts,
            context_lengths=tuple(span.stop for span in positions),
            num_decodes=next((i for i, count in enumerate(counts) if count > 1), len(counts)),
        )

    def generate(self, num_tokens: int) -> None:
        """Greedy decoding of all sequences together."""
        for _ in range(num_tokens):
            for tokens, logits in zip(self.tokens, self.logits, strict=True):
                tokens.append(int(logits[-1][-1].argmax()))
            self.run([(i, 1) for i in range(len(self.tokens))])


def backend_of(case: dict[str, Any]) -> Backend | None:
    """Triton's needs TRITON_INTERPRET=1 in the environment. None: the CPU's own."""
    if "split_tokens" in case:
        from peregrine_kernels.gpu.backend import TritonBackend

        return TritonBackend(case["split_tokens"])
    return {None: None, "torch": TorchBackend(), "reference": ReferenceBackend()}[case.get("backend")]


def run_case(case: dict[str, Any], parallel: TensorParallel) -> dict[str, Any]:
    """Loads a checkpoint; for every schedule, every sequence's tokens, float32 logits of every position, and the sizes
    of the chunks that it was computed in."""
    path = Path(case["path"])
    progress: list[tuple[int, int]] = []
    dtype = getattr(torch, case["dtype"])
    backend = backend_of(case)
    kv_dtype = KV_DTYPES[case["kv_dtype"]] if "kv_dtype" in case else None
    context = model_context(dtype, backend, parallel=parallel, kv_dtype=kv_dtype)
    context = replace(context, format=load_format(path, case.get("quantize"), context.backend))
    model = load(path, context, lambda *reported: progress.append(reported))
    results: dict[str, Any] = {"progress": progress, "weight_bytes": model.weight_bytes}
    for name in case["schedules"]:
        sequences = Sequences(model, case["prompts"])
        if name == CACHED_PREFIXES:
            sequences.share_prefixes()
        left = [len(prompt) - done for prompt, done in zip(case["prompts"], sequences.done, strict=True)]
        for work in schedule("ragged" if name == CACHED_PREFIXES else name, left):
            sequences.run(work)
        sequences.generate(case["num_generated"])
        logits, chunks = [], []
        for rows in sequences.logits:
            logits.append(torch.cat(rows))
            chunks.append([len(chunk) for chunk in rows])
        results[name] = {"tokens": sequences.tokens, "logits": logits, "chunks": chunks}
    return results


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    parallel = TensorParallel.join(job["rank"], job["size"], torch.device("cpu"), Rendezvous(job["rendezvous"]))
    torch.save([run_case(case, parallel) for case in job["cases"]], job["output"])
    parallel.close()


if __name__ == "__main__":
    main()
