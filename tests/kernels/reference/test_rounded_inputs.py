"""The oracle of rounded inputs, by hand."""

import torch

from peregrine_kernels import DenseWeight
from peregrine_kernels.reference.backend import ReferenceBackend
from peregrine_kernels.reference.rounded_inputs import RoundedInputs, round_inputs


def test_scales_are_the_least_powers_of_two() -> None:
    """448 itself is a code; a little more needs twice the scale; a row of zeros stays zero."""
    x = torch.tensor([[448.0, 1.0], [449.0, 1.0], [-0.875, 0.25], [0.0, 0.0]])
    codes, scales = round_inputs(x)
    assert scales[:3].flatten().tolist() == [1.0, 2.0, 2.0**-9]
    assert codes[:3].float().tolist() == [[448.0, 1.0], [224.0, 0.5], [-448.0, 128.0]]
    assert not codes[3].float().any()


def test_codes_have_four_significant_bits() -> None:
    """Halfway cases go to the even neighbour."""
    codes, scales = round_inputs(torch.tensor([[256.0, 17.0, 19.0, 21.5]]))
    assert (codes.float() * scales).tolist() == [[256.0, 16.0, 20.0, 22.0]]


def test_a_linear_multiplies_the_rounded_values() -> None:
    """They are those of the codes, in the type of the inputs; the residual is not rounded."""
    weight, x, residual = torch.randn(3, 2), torch.tensor([[256.0, 17.0]]), torch.randn(1, 3)
    linear = RoundedInputs(ReferenceBackend().linear(DenseWeight(weight)))
    assert (linear.in_features, linear.out_features) == (2, 3)
    torch.testing.assert_close(linear(x, residual), torch.tensor([[256.0, 16.0]]) @ weight.T + residual)
