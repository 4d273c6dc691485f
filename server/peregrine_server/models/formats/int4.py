"""4-bit integers in groups of 64 inputs, each with a scale of either sign."""

from peregrine_server.models.formats.packing import Packing
from peregrine_server.models.formats.quantized import grouped
from peregrine_server.models.formats.rounded import RoundedFormat


class Int4Format(RoundedFormat):
    """Every linear; the output head has 8 bits."""

    name = "int4"

    def stored(self, in_features: int) -> Packing:
        return grouped("int4", in_features)
