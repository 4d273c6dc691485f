"""The largest step's memory, counted operation by operation on the GPU's kernels under Triton's interpreter."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from checkpoints import build_model, write_checkpoint
from falcons import load, model_context
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_server.execution.memory_profile import check_offload, run_largest_step
from peregrine_server.models.falcon.footprint import footprint
from peregrine_server.models.interface import Footprint
from peregrine_server.protocol import CacheSpec
from runners import shard_config


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._live = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gc.collect()  # The interpreter's launches keep their arguments in circles of references; compiled ones do not.
        given = {storage._cdata for storage in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket is torch.ops.aten.set_:
            return out  # The interpreter's view of an argument, such as a weight.
        for storage in _storages(out):
            if storage._cdata not in given and storage._cdata not in self._sizes:
                self._count(storage, storage._cdata)
        return out

    def _count(self, storage: torch.UntypedStorage, key: int) -> None:
        self._sizes[key] = storage.nbytes()
        weakref.finalize(storage, self._free, key)
        self._live += storage.nbytes()
        self.peak = max(self.peak, self._live)

    def _free(self, key: int) -> None:
        self._live -= self._sizes.pop(key)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [each.untyped_storage() for each in tree_leaves(values) if isinstance(each, torch.Tensor)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "quantize"),
    [("40b", None), ("rw-1b", None), ("40b", "int8"), ("40b", "fp8-w8a8"), ("rw-1b", "fp8-w8a8")],
)
def test_activations_are_what_the_largest_step_allocates(variant: str, quantize: str | None, tmp_path: Path) -> None:
    """The computed peak of 264 tokens is the counted one, but for the block, positions, logits, and a tensor of hidden
    states that the interpreter may still hold. Of a packed model, the dequantized part of the output GEMM is in it,
    and QKV, which takes less than hidden states more than the output, is not."""
    context = model_context(torch.float32, TritonBackend(), quantize=quantize)
    model = load(write_checkpoint(tmp_path, build_model(variant)), context)
    config = shard_config(tmp_path, max_step_tokens=264, max_batch_size=1)
    gc.collect()
    gc.freeze()  # so that each collection looks at the step's objects alone
    with LiveBytes() as counted:
        run_largest_step(model, config)
    gc.unfreeze()
    each = footprint(model.config, model.context.layout)
    computed = each.scratch_bytes + 264 * each.activation_bytes_per_token
    hidden_states = 264 * 4 * model.config.hidden_size
    block_bytes = config.block_size * each.cache.kv_bytes_per_token
    assert computed - (hidden_states if quantize else 0) <= counted.peak < computed + hidden_states + block_bytes + 4096


@pytest.mark.parametrize(
    ("device", "host_bytes", "words"),
    [
        ("cpu", 1, "is for GPUs"),
        ("cuda", 0, "too few layers"),
        ("cuda", 2**60, "of which"),
    ],
)
def test_weights_that_the_host_cannot_keep_are_refused(device: str, host_bytes: int, words: str) -> None:
    """In one line, before they are loaded."""
    size = Footprint(1, 0, CacheSpec(1), 1, host_bytes=host_bytes)
    config = shard_config(Path("model"), cpu_offload_bytes=1)
    with pytest.raises(ValueError, match=rf"^--cpu-offload-gb[^\n]*{words}[^\n]*$"):
        check_offload(size, config, torch.device(device))
    check_offload(size, replace(config, cpu_offload_bytes=0), torch.device(device))
