"""Triton's cache filled ahead of time, without a GPU: every Falcon's kernels as a server launches them.

    TRITON_CACHE_DIR=/opt/kernels python -m peregrine_kernels.aot.cache --architectures 80 86 90

A GPU host then neither compiles them nor needs a C compiler: what Triton compiles in C is here too.
"""

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver as cuda
from triton.runtime import driver
from triton.runtime.build import compile_module_from_src

from peregrine_kernels.aot.compile import (
    ARCHITECTURES,
    BLOCK_SIZE,
    META,
    meta_batch,
    sampling_variants,
    variants_of,
)
from peregrine_kernels.aot.quantized import model_launches, shared_launches
from peregrine_kernels.aot.shapes import SHAPES, Shape
from peregrine_kernels.gpu.activation import activation_launch
from peregrine_kernels.gpu.decode_inputs import decode_inputs_launch
from peregrine_kernels.gpu.gemv import gemv_launch
from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.gpu.layernorm import layer_norm_launch
from peregrine_kernels.kv_cache import GraphDecodeRows

ANY = (1, 2, 16)
"""One size for each kernel that Triton makes of a size: 1 is a constant, and what 16 divides is known to be."""
_DRIVER_CALL = re.compile(r"\bcu[A-Z]\w+(?=\()")
MODEL_SIZES: dict[str, dict[str, Sequence[int]]] = {
    "prefill_attention_kernel": {"stride_table": ANY},
    "decode_attention_kernel": {"stride_table": ANY},
    "merge_splits_kernel": {"num_splits": (2, 16)},
    "sampling_kernel": {"stride_parameter": ANY},
}
"""Kernel -> sizes that vary from step to step, or with --max-total-tokens."""


class NoDevice:
    """Triton's driver without a device: kernels are compiled for the capability that stands for the device's number."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_device(self) -> int:
        return self._capability

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="*", type=int, default=[*ARCHITECTURES], choices=[*ARCHITECTURES])
    parser.add_argument("--models", nargs="*", default=[], help="names of aot/shapes.py; none: all of them")
    options = parser.parse_args()
    build_driver_module()
    shapes = [shape for shape in SHAPES if not options.models or shape.name in options.models]
    count = sum(fill(shape, capability) for shape, capability in product(shapes, options.architectures))
    print(f"{count} kernels in {knobs.cache.dir}")


def fill(shape: Shape, capability: int) -> int:
    """Compiles a model's kernels for one architecture into the cache; returns their number."""
    return len({warm(launch, capability).hash for launch in launches(shape, capability)})


def warm(launch: Launch, capability: int) -> Any:
    """Compiles a launch by Triton's own launcher, which chooses the specialization and the cache's key."""
    driver.set_active(NoDevice(capability))
    return launch.kernel.run(grid=launch.grid, warmup=True, **launch.arguments, **launch.constants, **launch.options)


def launches(shape: Shape, capability: int) -> Iterator[Launch]:
    """All that a server launches of a model in bfloat16, once for each kernel that Triton makes of it."""
    model = [variant.launch for variant in (*variants_of(shape, capability), *sampling_of(shape))]
    for launch in (*model, *_more_of(shape)):
        yield from _in_all_sizes(launch, MODEL_SIZES.get(launch.kernel.__name__, {}))
    yield from (launch for _, launch in shared_launches(is_stored=True))
    yield from model_launches(shape, capability)
    yield from decode_inputs_launches()


def sampling_of(shape: Shape) -> Iterator[Any]:
    """The sampling kernel of a model's vocabulary."""
    whole = next(whole for whole in SHAPES if whole.model == shape.model and whole.num_ranks == 1)
    return (variant for variant in sampling_variants() if f"[S, {whole.vocab_size}]" in variant.shape)


def _more_of(shape: Shape) -> Iterator[Launch]:
    """The first norm, the last linears of a lone decode, and activations behind a bias: beside what is reported on."""
    x, affine = _empty(2, shape.hidden_size), (_empty(shape.hidden_size), _empty(shape.hidden_size))
    bias = affine[0] if shape.has_alibi else None
    for count in {1, shape.num_layer_norms}:
        yield layer_norm_launch(x, None, None, [affine] * count, [x] * count, 1e-5)
        yield layer_norm_launch(x, x, bias, [affine] * count, [x] * count, 1e-5)
    attended = shape.num_heads * shape.head_dim
    for size in [attended + shape.ffn_size] if shape.is_parallel else [attended, shape.ffn_size]:
        for after in {bias, None}:
            yield gemv_launch(_empty(1, size), _empty(shape.hidden_size, size), after, None, x[:1])
    yield gemv_launch(x[:1], _empty(shape.vocab_size, shape.hidden_size), None, None, _empty(1, shape.vocab_size))
    activated = _empty(2, shape.ffn_size)
    if shape.has_alibi:
        yield activation_launch("gelu", activated, _empty(shape.ffn_size), activated)


def decode_inputs_launches() -> Iterator[Launch]:
    """The inputs of a captured step, for any number of decodes and blocks."""
    rows, ints = _empty(2, 2, dtype=torch.int64), _empty(2, 2, dtype=torch.int64)
    launch = decode_inputs_launch(GraphDecodeRows(rows, ints, ints, BLOCK_SIZE), ints[0], meta_batch())
    for decodes, blocks in product(ANY, ANY):
        sizes = {"num_decodes": decodes, "stride_rows": decodes, "stride_table": blocks, "stride_to_table": blocks}
        yield replace(launch, arguments={**launch.arguments, **sizes})


def _in_all_sizes(launch: Launch, sizes: dict[str, Sequence[int]]) -> Iterable[Launch]:
    for values in product(*sizes.values()):
        yield replace(launch, arguments={**launch.arguments, **dict(zip(sizes, values, strict=True))})


def _empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


def build_driver_module() -> None:
    """Compiles the C module by which Triton's driver loads and launches kernels, on a host without a GPU's driver."""
    source = Path(cuda.__file__).with_name("driver.c").read_text()
    with tempfile.TemporaryDirectory() as folder, suppress(ImportError):
        write_libcuda(Path(folder))
        # It is in the cache before it is imported, which fails without the real library.
        compile_module_from_src(source, "cuda_utils", [folder], cuda.include_dirs, cuda.libraries)


def write_libcuda(folder: Path) -> None:
    """A library with the functions of libcuda that the module is linked with; they do nothing."""
    source = Path(cuda.__file__).with_name("driver.c").read_text()
    functions = "".join(f"int {name}(void) {{ return 0; }}\n" for name in sorted(set(_DRIVER_CALL.findall(source))))
    library = folder / "libcuda.so.1"
    command = ["gcc", "-shared", "-fPIC", "-o", str(library), f"-Wl,-soname,{library.name}", "-x", "c", "-"]
    subprocess.run(command, input=functions, text=True, check=True)


if __name__ == "__main__":
    main()
