"""AWQ's layout "gemm", as AutoAWQ writes it."""

from collections.abc import Mapping
from typing import Any

from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.formats.checkpoints.input_major import InputMajorFormat, InputMajorScheme
from peregrine_server.models.formats.checkpoints.scheme import expect, expect_group_size, expect_quantized, first_of
from peregrine_server.models.formats.interface import ALL_KERNELS, WeightKernels
from peregrine_server.models.loading.tensor_spec import TensorSpec

AWQ = "awq"
PLACES = 0, 4, 1, 5, 2, 6, 3, 7
"""Where the outputs of a word are, from its lowest four bits."""


class AwqFormat(InputMajorFormat):
    """Words of outputs, and zero points. What was scaled for it is scaled in norms and weights already."""

    def __init__(self, quantization: Mapping[str, Any], kernels: WeightKernels = ALL_KERNELS) -> None:
        super().__init__(AWQ, read_scheme(quantization), kernels)
        self._not_converted = quantization.get("modules_to_not_convert")

    def expected(self, name: str, out_features: int, in_features: int) -> Mapping[str, TensorSpec]:
        expect_quantized(name, "modules_to_not_convert", self._not_converted)
        group = self.scheme.group_size
        if group and in_features % group:
            raise UnsupportedModel(
                f"{name}.scales: groups of {group} do not divide {in_features} inputs; give another checkpoint"
            )
        return super().expected(name, out_features, in_features)


def read_scheme(quantization: Mapping[str, Any]) -> InputMajorScheme:
    """Reads `quantization_config` or quant_config.json. Raises UnsupportedModel for what is not understood."""
    expect("bits", first_of(quantization, "bits", "w_bit", default=None), 4)
    version = first_of(quantization, "version", default="gemm")
    expect("version", version.lower() if isinstance(version, str) else version, "gemm")
    expect("backend", first_of(quantization, "backend", default="autoawq"), "autoawq")
    expect("zero_point", quantization.get("zero_point", True), True)
    group_size = first_of(quantization, "group_size", "q_group_size", default=-1)
    if group_size != -1:
        expect_group_size(group_size)
    return InputMajorScheme(
        num_bits=4,
        group_size=None if group_size == -1 else group_size,
        is_symmetric=False,
        packs_inputs=False,
        places=PLACES,
        zero_offset=0,
    )
