"""Weight and KV bytes against the published figures."""

from pathlib import Path

import pytest
import torch

from checkpoints import PUBLISHED, build_model, write_checkpoint
from cpu_backends import native
from falcons import load, model_context
from held_bytes import held_bytes
from peregrine_kernels.aot.shapes import SHAPES, Shape
from peregrine_kernels.aot.weights import meta_weights
from peregrine_router.launch.model_files import demo_path
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.footprint import (
    PANEL_ALIGNMENT,
    PANEL_ROWS,
    footprint,
    kv_bytes_per_token,
    num_weights,
    padding_overhead,
    weight_bytes,
)
from peregrine_server.models.formats.interface import ALL_KERNELS
from peregrine_server.models.formats.packing import FP8, INT8, Packing
from peregrine_server.models.formats.registry import FORMATS, weight_format
from peregrine_server.models.interface import Layout

CONFIGS = {model: FalconConfig.from_hf(hf) for model, hf in PUBLISHED.items()}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("falcon-7b", 8_192),
        ("falcon-40b", 122_880),
        ("falcon-180B", 163_840),
        ("falcon-11B", 245_760),
        ("falcon-rw-1b", 196_608),
    ],
)
def test_kv_bytes_of_a_token(model: str, expected: int) -> None:
    """In bfloat16 a token's keys and values take the published number of bytes."""
    assert kv_bytes_per_token(CONFIGS[model], 1, "bfloat16") == expected


@pytest.mark.parametrize(
    ("model", "billions"),
    [("falcon-7b", 6.92), ("falcon-40b", 41.3), ("falcon-180B", 178.3), ("falcon-11B", 11.1), ("falcon-rw-1b", 1.31)],
)
def test_number_of_weights(model: str, billions: float) -> None:
    """The models have as many parameters as their names say, near enough."""
    assert num_weights(CONFIGS[model]) / 1e9 == pytest.approx(billions, rel=0.01)


def test_weights_of_a_packed_head() -> None:
    """A tied head that is packed costs a second embedding table; an untied one has its own already."""
    tied, untied = CONFIGS["falcon-7b"], CONFIGS["falcon-11B"]
    extra = weight_bytes(tied, 1, "bfloat16", has_packed_head=True) - weight_bytes(tied, 1, "bfloat16")
    assert extra == 65024 * 4544 * 2
    assert weight_bytes(untied, 1, "float32", has_packed_head=True) == weight_bytes(untied, 1, "float32")


def test_kv_of_8_bits() -> None:
    """A byte for each number and a float32 for each head of K and of V: 7B's token takes 17/32 of bfloat16's bytes."""
    assert kv_bytes_per_token(CONFIGS["falcon-7b"], 1, "bfloat16", is_8_bit=True) == 32 * 2 * (64 + 4)


def test_kv_heads_of_a_rank() -> None:
    """8 KV heads over 4 ranks are a quarter each; the one of 7B is on both of 2 ranks."""
    assert kv_bytes_per_token(CONFIGS["falcon-40b"], 4, "bfloat16") == 122_880 // 4
    assert kv_bytes_per_token(CONFIGS["falcon-7b"], 2, "bfloat16") == 8_192


@pytest.mark.parametrize("model", CONFIGS)
@pytest.mark.parametrize("num_shards", [1, 2, 3, 4, 8])
def test_padding_is_reported(model: str, num_shards: int) -> None:
    """Zeros and replicas cost nothing on one rank and under a tenth on any sensible number."""
    overhead = padding_overhead(CONFIGS[model], num_shards)
    assert overhead == 0 if num_shards == 1 else 0 < overhead < 0.1


@native
@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("variant", ["demo", "rw-1b", "11b"])
def test_a_loaded_model_holds_what_was_computed(variant: str, quantize: str | None, tmp_path: Path) -> None:
    """The tensors of the demo, and of small Falcons whose linears are whole tiles, have the footprint's bytes; so have
    the pages of their caches."""
    path = demo_path() if variant == "demo" else write_checkpoint(tmp_path, build_model(variant, vocab_size=320))
    model = load(path, model_context(torch.bfloat16, quantize=quantize))
    computed = footprint(model.config, model.context.layout)
    assert held_bytes(model) - held_bytes(model.rotary, model.context) == computed.weight_bytes == model.weight_bytes
    assert held_bytes(model.allocate_cache(3, 16)) == 3 * 16 * computed.cache.kv_bytes_per_token


@pytest.mark.parametrize("quantize", FORMATS)
@pytest.mark.parametrize("variant", ["demo", "rw-1b", "11b"])
def test_a_model_in_a_gpus_layout_holds_what_was_computed(variant: str, quantize: str, tmp_path: Path) -> None:
    """In fragment order, which a CPU can make, too: the tensors' bytes are those that `peregrine plan` counts."""
    backend = pytest.importorskip("peregrine_kernels.gpu.backend").TritonBackend()
    path = demo_path() if variant == "demo" else write_checkpoint(tmp_path, build_model(variant, vocab_size=320))
    model = load(path, model_context(torch.bfloat16, backend, quantize=quantize))
    planned = Layout(num_ranks=1, dtype="bfloat16", format=weight_format(quantize))
    computed = footprint(model.config, planned).weight_bytes
    assert held_bytes(model) - held_bytes(model.rotary, model.context) == computed == model.weight_bytes


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_kind_of_weight_takes_what_was_computed(shape: Shape) -> None:
    """In a GPU's layout, for the linears of every Falcon: nothing is padded."""
    fragment_order = pytest.importorskip("peregrine_kernels.gpu.fragment_order").fragment_order
    hidden, attended, ffn = shape.hidden_size, shape.num_heads * shape.head_dim, shape.ffn_size
    kinds = {"int8": INT8, "fp8": FP8, "int4": Packing("int4", 64), "codebook": Packing("codebook", 64)}
    kinds["int4 with zeros"] = Packing("int4", 64, has_zeros=True)
    for size in ((shape.qkv_size, hidden), (ffn, hidden), (hidden, attended + ffn), (shape.vocab_size, hidden)):
        for kind, weight in meta_weights(*size).items():
            held = fragment_order(weight)
            tensors = held.words, held.scales, held.zeros, held.table
            num_bytes = sum(each.nbytes for each in tensors if each is not None)
            assert num_bytes == kinds[kind].num_bytes(*size, "bfloat16", ALL_KERNELS)


def test_a_packed_head_is_a_copy_of_the_table() -> None:
    """On a GPU, 40B's tied head is its table in bfloat16, read whole; in int8 it stands beside it, of which a step
    looks up rows alone."""
    config = CONFIGS["falcon-40b"]
    dense, packed = (
        footprint(config, Layout(num_ranks=1, dtype="bfloat16", format=weight_format(name))) for name in (None, "int8")
    )
    assert (dense.unread_bytes, packed.unread_bytes) == (0, 65_024 * 8_192 * 2)
    assert packed.weight_bytes == pytest.approx(40.77e9 + 3 * 65_024 * 8_192, rel=1e-3)


@pytest.mark.parametrize(("model", "kilobytes"), [("falcon-7b", 82.3), ("falcon-40b", 166.1), ("falcon-rw-1b", 41.0)])
def test_activations_of_a_token(model: str, kilobytes: float) -> None:
    """7B: three times 4,544 for residual and norm, 4,672 of QKV, 22,720 before the output GEMM and 128 of rotary
    positions, two bytes each."""
    layout = Layout(num_ranks=1, dtype="bfloat16", format=weight_format(None))
    assert footprint(CONFIGS[model], layout).activation_bytes_per_token / 1e3 == pytest.approx(kilobytes, abs=0.05)


@pytest.mark.parametrize(("model", "widest"), [("falcon-7b", 22_720), ("falcon-40b", 40_960), ("falcon-rw-1b", 8192)])
def test_rounded_inputs_take_memory(model: str, widest: int) -> None:
    """Two bytes for each input of the widest linear, and the bytes of the weights of fp8 beside them."""
    plain, rounding = (
        footprint(CONFIGS[model], Layout(num_ranks=1, dtype="bfloat16", format=weight_format(name)))
        for name in ("fp8", "fp8-w8a8")
    )
    assert rounding.activation_bytes_per_token - plain.activation_bytes_per_token == 2 * widest
    assert (rounding.weight_bytes, rounding.scratch_bytes) == (plain.weight_bytes, plain.scratch_bytes)


@pytest.mark.parametrize(
    ("model", "quantize", "rows", "columns"),
    [
        ("falcon-7b", None, 0, 0),
        ("falcon-7b", "int8", 2304, 22_720),
        ("falcon-40b", "nf4", 4096, 40_960),
        ("falcon-rw-1b", "int4", 2048, 8192),
    ],
)
def test_scratch_of_a_packed_model(model: str, quantize: str | None, rows: int, columns: int) -> None:
    """The panel of the output GEMM, the widest: 7B's 4,544 rows are two, 40B's 8,192 two of 4,096, two bytes each
    value."""
    layout = Layout(num_ranks=1, dtype="bfloat16", format=weight_format(quantize))
    assert footprint(CONFIGS[model], layout).scratch_bytes == 2 * rows * columns


def test_a_panel_is_the_kernels() -> None:
    """Sized without torch as the GPU's linears allocate it."""
    linear = pytest.importorskip("peregrine_kernels.gpu.linear")
    assert (PANEL_ROWS, PANEL_ALIGNMENT) == (linear.PANEL_ROWS, linear.PANEL_ALIGNMENT)
