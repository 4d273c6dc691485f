"""The types of a GGUF checkpoint's linears, as `quantization_config` names them. Imports no torch."""

from collections.abc import Iterable, Mapping
from typing import Any

from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.formats.packing import DENSE, INT8, Packing
from peregrine_server.models.loading.gguf_header import BY_NAME, FOUR_BITS

GGUF = "gguf"
GROUP = 32
"""Inputs of a scale in all types of 4 bits."""
_FLOATS = "F32", "F16", "BF16"
_FOUR_BITS = {
    "Q4_0": Packing("int4", GROUP),
    "Q4_1": Packing("int4", GROUP, has_zeros=True),
    "Q4_K": Packing("int4", GROUP, has_zeros=True),
    "IQ4_NL": Packing("codebook", GROUP),
}
assert _FOUR_BITS.keys() == set(FOUR_BITS)


def quantization_config(types: Mapping[str, str], together: Iterable[Iterable[str]]) -> dict[str, Any] | None:
    """`quantization_config` of linears by name and type; None: none of them is quantized.

    `together`: names of linears that some devices multiply as one, so that all of these are kept alike.
    """
    if all(each in _FLOATS for each in types.values()):
        return None
    return {"quant_method": GGUF, "types": dict(types), "together": [list(each) for each in together]}


def read_types(quantization: Mapping[str, Any]) -> dict[str, str]:
    """Linear -> its type. Raises UnsupportedModel for what is not understood."""
    types = quantization.get("types")
    if not isinstance(types, dict) or not types or not all(each in BY_NAME for each in map(str, types.values())):
        raise UnsupportedModel(f"quantization_config: types must name the linears' types, of {', '.join(BY_NAME)}")
    return {name: str(each) for name, each in types.items()}


def read_packings(quantization: Mapping[str, Any]) -> dict[str, Packing]:
    """Linear -> how it is kept, with those that are multiplied with it. Raises UnsupportedModel."""
    types, together = read_types(quantization), quantization.get("together", [])
    packings = {name: _packing(each) for name, each in types.items()}
    if not isinstance(together, list):
        raise UnsupportedModel("quantization_config: together must be a list of lists of linears")
    for names in together:
        if not isinstance(names, list) or not all(isinstance(name, str) and name in types for name in names):
            raise UnsupportedModel(f"quantization_config: together {names!r:.80} names other linears than types")
        packings |= dict.fromkeys(names, common([packings[name] for name in names]))
    return packings


def _packing(type_name: str) -> Packing:
    """The nearest that kernels have: 5, 6 and 8 bits in groups become 8 bits in rows."""
    return DENSE if type_name in _FLOATS else _FOUR_BITS.get(type_name, INT8)


def common(packings: list[Packing]) -> Packing:
    """The smallest in which all can be kept."""
    kinds = {each.kind for each in packings}
    if len(kinds) == 1:
        return max(packings, key=lambda each: each.has_zeros)
    return DENSE if "dense" in kinds else INT8
