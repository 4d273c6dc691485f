"""4-bit NormalFloat in blocks of 64 inputs, as bitsandbytes has it."""

from peregrine_server.models.formats.packing import Packing
from peregrine_server.models.formats.quantized import grouped
from peregrine_server.models.formats.rounded import RoundedFormat


class Nf4Format(RoundedFormat):
    """Every linear; the output head has 8 bits."""

    name = "nf4"

    def stored(self, in_features: int) -> Packing:
        return grouped("codebook", in_features)
