"""8-bit integers with a scale for each row (W8A8: inputs are rounded in the kernels)."""

from peregrine_server.models.formats.packing import DENSE, INT8, INT8_ALIGNMENT, Packing
from peregrine_server.models.formats.rounded import RoundedFormat


class Int8Format(RoundedFormat):
    """Every linear and the output head."""

    name = "int8"

    def stored(self, in_features: int) -> Packing:
        return DENSE if in_features % INT8_ALIGNMENT else INT8
