"""8-bit floating-point numbers (e4m3) with a scale for each row."""

from peregrine_server.models.formats.packing import FP8, FP8_W8A8, Packing
from peregrine_server.models.formats.rounded import RoundedFormat


class Fp8Format(RoundedFormat):
    """Every linear and the output head. Where nothing multiplies fp8, `packing_for` says what becomes of it."""

    name = "fp8"

    def stored(self, in_features: int) -> Packing:
        return FP8


class Fp8W8A8Format(Fp8Format):
    """The same weights; linears, but for the output head, round their inputs to e4m3 as well, by a scale a row."""

    name = "fp8-w8a8"

    def stored(self, in_features: int) -> Packing:
        return FP8_W8A8
