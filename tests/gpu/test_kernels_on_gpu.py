"""Every kernel as compiled for the GPU at hand, against the reference on the same GPU."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from paged_cases import Sequences, make_case
from peregrine_kernels import DenseWeight
from peregrine_kernels.dense_linear import DenseLinear
from peregrine_kernels.gpu.activation import activation_launch
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_kernels.reference.backend import ACTIVATIONS, ReferenceBackend
from sampling_cases import assert_agrees

pytestmark = pytest.mark.gpu

REFERENCE, BACKEND = ReferenceBackend(), TritonBackend()
HEADS = [(71, 1, 64), (36, 1, 64), (128, 8, 64), (232, 8, 64), (32, 8, 128), (32, 32, 64), (12, 4, 256), (6, 3, 80)]
BOUNDS = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Two units in the last place of results of order 2: probabilities and result are rounded once each."""

lengths = st.integers(1, 1500).flatmap(lambda context: st.tuples(st.integers(1, min(context, 300)), st.just(context)))
batches = st.lists(st.one_of(lengths, lengths.map(lambda x: (1, x[1]))), min_size=1, max_size=8)


@pytest.mark.parametrize("heads", HEADS, ids=str)
@settings(max_examples=8, deadline=None, phases=[Phase.generate])  # to look for less would compile for minutes
@given(batches, st.sampled_from([16, 48, 64]), st.booleans(), st.sampled_from(list(BOUNDS)),
       st.sampled_from([None, torch.int8, torch.float8_e4m3fn]), st.integers(0, 99))  # fmt: skip
def test_write_and_attention_of_any_ragged_batch(
    device: torch.device,
    heads: tuple[int, int, int],
    sequences: Sequences,
    block_size: int,
    alibi: bool,
    dtype: torch.dtype,
    kv_dtype: torch.dtype | None,
    seed: int,
) -> None:
    """Whatever is in the batch, in every type of model and of pages."""
    case = make_case(sequences, heads, block_size, alibi, dtype, kv_dtype, seed).to(device)
    written = case.copy()
    case.write(REFERENCE)
    written.write(BACKEND)
    bound = BOUNDS[dtype]
    q, theirs = written.fused[:, : case.width], case.fused[:, : case.width]
    torch.testing.assert_close(q, theirs, rtol=bound, atol=bound)
    torch.testing.assert_close(case.attend(BACKEND), case.attend(REFERENCE), rtol=bound, atol=bound)
    if kv_dtype is None:
        torch.testing.assert_close(written.attend(BACKEND), case.attend(REFERENCE), rtol=2 * bound, atol=2 * bound)
    else:
        # Of 8 bits, what lies between two values may become either.
        steps = written.pages.view(torch.int8).int() - case.pages.view(torch.int8).int()
        assert steps.abs().max() <= 1
        assert (steps != 0).float().mean() < 0.01


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("size", [2048, 4544, 14848])
def test_residual_and_layer_norms(device: torch.device, size: int, dtype: torch.dtype) -> None:
    """One and two norms of a sum with a bias."""

    def make(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    x, delta, bias, affines = make(33, size), make(33, size), make(size), [(make(size), make(size)) for _ in range(2)]
    expected, norms = REFERENCE.add_layer_norms(x, delta.clone(), bias, affines, 1e-5)
    total, ours = BACKEND.add_layer_norms(x, delta.clone(), bias, affines, 1e-5)
    assert torch.equal(total, expected)
    for a, b in zip(ours, norms, strict=True):
        torch.testing.assert_close(a, b, rtol=BOUNDS[dtype], atol=BOUNDS[dtype])


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(device: torch.device, name: str, dtype: torch.dtype) -> None:
    """Between parts of wider rows."""
    x = (torch.randn(5, 20000, device=device) * 3).to(dtype)
    out = torch.zeros(5, 30000, device=device, dtype=dtype)
    activation_launch(name, x[:, 1000:19176], None, out[:, 64:18240])()
    expected = ACTIVATIONS[name](x[:, 1000:19176].float()).to(dtype)
    torch.testing.assert_close(out[:, 64:18240], expected, rtol=BOUNDS[dtype], atol=BOUNDS[dtype])


@pytest.mark.parametrize("rows", [1, 2, 64])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(("out_features", "in_features"), [(4672, 4544), (18176, 4544), (4544, 22720), (1000, 130)])
def test_linear(device: torch.device, out_features: int, in_features: int, dtype: torch.dtype, rows: int) -> None:
    """Bias, activation and all, into a part of wider rows."""
    weight = (torch.randn(out_features, in_features, device=device) / in_features**0.5).to(dtype)
    bias, x = (
        torch.randn(out_features, device=device).to(dtype),
        torch.randn(rows, in_features, device=device).to(dtype),
    )
    out = torch.zeros(rows, out_features + 64, device=device, dtype=dtype)
    linear = BACKEND.linear(DenseWeight(weight), bias, "gelu")
    assert isinstance(linear, DenseLinear)
    linear.into(x, out[:, 16:-48])
    expected = ACTIVATIONS["gelu"](x.double() @ weight.double().T + bias.double()).to(dtype)
    torch.testing.assert_close(out[:, 16:-48], expected, rtol=BOUNDS[dtype], atol=BOUNDS[dtype])


@pytest.mark.parametrize("size", [1, 97, 4097, 65024])
@pytest.mark.parametrize("spread", [0.0, 2.0, 30.0])
def test_sampled_tokens(device: torch.device, size: int, spread: float) -> None:
    """Tokens are the CPU sampler's, but for a few of a flat row where rounding decides."""
    torch.manual_seed(0)
    logits, uniforms = (torch.randn(size) * spread).to(device), torch.rand(16, dtype=torch.float64).tolist()
    for temperature, top_k, top_p in [(0.8, 50, 0.95), (1.0, 100_000, 0.9), (1.3, 5, 1.0), (0.7, 100_000, 1.0)]:
        assert assert_agrees(logits, temperature, top_k, top_p, uniforms) >= 8


def test_a_decode_does_not_depend_on_its_neighbours(device: torch.device) -> None:
    """To the bit, in bfloat16, in a batch of 64 of very different lengths."""
    sequences = [(1, 1 + 37 * i) for i in range(64)]
    case = make_case(sequences, (71, 1, 64), 64, dtype=torch.bfloat16).to(device)
    case.write(REFERENCE)
    together = case.attend(BACKEND)
    assert torch.equal(together, case.attend(BACKEND))
    alone = make_case(sequences, (71, 1, 64), 64, dtype=torch.bfloat16).to(device)
    alone.write(REFERENCE)
    for row in (0, 13, 63):
        batch = type(alone.batch)(
            alone.batch.positions[row : row + 1],
            alone.batch.slot_mapping[row : row + 1],
            alone.batch.block_tables[row : row + 1],
            (1,),
            alone.batch.context_lengths[row : row + 1],
            1,
        )
        out = torch.empty(1, alone.width, dtype=torch.bfloat16, device=device)
        BACKEND.attention(alone.fused[row : row + 1, : alone.width], batch, alone.pages, None, out)
        assert torch.equal(out[0], together[row])
