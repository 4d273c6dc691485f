"""Kinds of a weight on a device, by the kernels that there are."""

from dataclasses import fields

import pytest
import torch

from cpu_backends import native
from peregrine_kernels import DenseWeight, Int8Weight, backend_for
from peregrine_kernels.fp8 import quantize_fp8
from peregrine_kernels.int4 import quantize_int4
from peregrine_kernels.int8 import quantize_rows
from peregrine_kernels.weights import Float8Weight
from peregrine_server.models.formats.interface import ALL_KERNELS, CPU_KERNELS, KernelsOfDevice
from peregrine_server.models.formats.packing import DENSE, FP8, FP8_W8A8, INT8, Packing, pack, packing_for

NONE = KernelsOfDevice(0, has_fp8=False, int4_group=0, has_codebooks=False, dequantizes=False)
INT4, NF4 = Packing("int4", 64), Packing("codebook", 64)


@pytest.mark.parametrize(
    ("kernels", "wanted", "kept"),
    [
        *((ALL_KERNELS, each, each) for each in (DENSE, INT8, FP8, FP8_W8A8, INT4, NF4)),
        (CPU_KERNELS, INT8, INT8),
        (CPU_KERNELS, FP8, INT8),
        (CPU_KERNELS, FP8_W8A8, INT8),
        (CPU_KERNELS, NF4, DENSE),
        (NONE, DENSE, DENSE),
        *((NONE, each, None) for each in (INT8, FP8, INT4, NF4)),
    ],
)
def test_what_has_no_kernels_is_dequantized_or_refused(
    kernels: KernelsOfDevice, wanted: Packing, kept: Packing | None
) -> None:
    """A weight stays as it is stored where there are kernels; fp8 has those of int8; None where none may take it."""
    assert packing_for(kernels, wanted, 128) == kept


def test_groups_that_kernels_do_not_take_have_none() -> None:
    """Their size is to be a multiple of the kernels'."""
    kernels = KernelsOfDevice(0, has_fp8=False, int4_group=64, has_codebooks=False, dequantizes=True)
    kept = [packing_for(kernels, Packing("int4", size), 128) for size in (32, 64, 128)]
    assert kept == [DENSE, Packing("int4", 64), Packing("int4", 128)]


def test_bytes_are_those_of_the_tensors() -> None:
    """Integers, and the scales of groups, with zero points where there are."""
    weight = quantize_int4(torch.randn(6, 128), 64)
    stored = sum(each.nbytes for each in (weight.packed, weight.scales))
    assert INT4.num_bytes(6, 128, "bfloat16", ALL_KERNELS) == stored
    assert Packing("int4", 64, has_zeros=True).num_bytes(6, 128, "bfloat16", ALL_KERNELS) == stored + 6 * 2 * 4


def test_integers_too_large_for_the_kernels_are_rounded_again() -> None:
    """AVX2 multiplies integers up to 63; those that fit are kept as they are. Values pass through the
    model's type."""
    weight = quantize_rows(torch.randn(6, 128), 127)
    kernels = KernelsOfDevice(63, has_fp8=False, int4_group=0, has_codebooks=False, dequantizes=True)
    assert pack(weight, INT8, CPU_KERNELS, torch.bfloat16) is weight
    packed = pack(weight, INT8, kernels, torch.bfloat16)
    assert isinstance(packed, Int8Weight)
    assert int(packed.values.abs().max()) == 63
    assert (packed.dequantize() - weight.dequantize().bfloat16()).abs().max() < 0.51 * packed.scales.max()


@pytest.mark.parametrize("packing", [FP8, FP8_W8A8])
def test_a_weight_knows_whether_its_inputs_are_rounded(packing: Packing) -> None:
    """One that is rounded as it is loaded, and one that the checkpoint holds in fp8: the values are the same."""
    table = torch.randn(6, 128).bfloat16()
    stored = quantize_fp8(table)
    for weight in (DenseWeight(table), stored):
        kept = pack(weight, packing, ALL_KERNELS, torch.bfloat16)
        assert isinstance(kept, Float8Weight)
        assert kept.rounds_inputs == packing.rounds_inputs
        assert torch.equal(kept.dequantize(), stored.dequantize())


def test_a_dense_weight_has_the_models_type() -> None:
    """The dequantized values, rounded once."""
    weight = quantize_int4(torch.randn(6, 128), 64)
    dense = pack(weight, DENSE, CPU_KERNELS, torch.bfloat16)
    assert isinstance(dense, DenseWeight)
    assert torch.equal(dense.values, weight.dequantize().bfloat16())


@native
def test_the_cpus_kernels_are_the_native_backends() -> None:
    """Weights are sized without torch as a shard on a CPU with AVX512 would load them."""
    backend = backend_for(torch.device("cpu"))
    for field in fields(CPU_KERNELS):
        assert field.name == "largest_int8" or getattr(CPU_KERNELS, field.name) == getattr(backend, field.name)
