"""The scheme of a compressed-tensors checkpoint, from `quantization_config`. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.formats.checkpoints.scheme import expect, expect_group_size

METHOD = "compressed-tensors"
PACKED, INTEGERS, FLOATS8 = "pack-quantized", "int-quantized", "float-quantized"
_BITS = {PACKED: (4, 8), INTEGERS: (8,), FLOATS8: (8,)}
_TYPES = {PACKED: "int", INTEGERS: "int", FLOATS8: "float"}
_STRATEGIES = {PACKED: ("group", "channel"), INTEGERS: ("channel", "tensor"), FLOATS8: ("channel", "tensor")}


@dataclass(frozen=True, slots=True)
class CompressedScheme:
    """How all linears of a checkpoint are stored."""

    layout: str
    """PACKED, INTEGERS or FLOATS8"""
    num_bits: int
    is_symmetric: bool
    group_size: int | None
    """Inputs of a scale; None: a row has one."""
    has_tensor_scale: bool
    """Whether all rows have one scale together."""


def read_scheme(scheme: Mapping[str, Any]) -> CompressedScheme:
    """Reads `quantization_config`. Raises UnsupportedModel with one line for what is not read, or not understood."""
    layout = str(scheme.get("format"))
    expect("format", layout, *_BITS)
    expect("quantization_status", scheme.get("quantization_status", "compressed"), "compressed", "frozen")
    for name in "sparsity_config", "transform_config":
        expect(name, _active(scheme.get(name)), None)
    weights = _weights_of(scheme, layout)
    expect("type", weights.get("type", "int"), _TYPES[layout])
    expect("num_bits", weights.get("num_bits", 8), *_BITS[layout])
    expect("dynamic", weights.get("dynamic", False), False)
    expect("block_structure", weights.get("block_structure"), None)
    # Weights in another order than the file's would need their permutation.
    expect("actorder", weights.get("actorder"), None, False, "weight", "static")
    strategy = weights.get("strategy") or ("group" if weights.get("group_size") else "tensor")
    expect("strategy", strategy, *_STRATEGIES[layout])
    has_zeros = layout != FLOATS8 and strategy != "tensor"
    expect("symmetric", weights.get("symmetric", True), *((True, False) if has_zeros else (True,)))
    group_size = weights.get("group_size") if strategy == "group" else None
    if strategy == "group":
        expect_group_size(group_size)
    return CompressedScheme(
        layout, weights.get("num_bits", 8), weights.get("symmetric", True), group_size, strategy == "tensor"
    )


def _weights_of(scheme: Mapping[str, Any], layout: str) -> Mapping[str, Any]:
    """The only group's description of weights; it is for all linears."""
    groups = scheme.get("config_groups")
    if not isinstance(groups, dict) or len(groups) != 1:
        raise UnsupportedModel("quantization_config: config_groups must hold one group: others are not supported")
    (group,) = groups.values()
    if not isinstance(group, dict) or not isinstance(group.get("weights"), dict):
        raise UnsupportedModel("quantization_config: its group describes no weights; give the original weights")
    expect("targets", group.get("targets"), ["Linear"])
    expect("format", group.get("format") or layout, layout)
    weights: dict[str, Any] = group["weights"]
    return weights


def _active(section: object) -> object:
    """A section that says something, or None."""
    if isinstance(section, dict) and (section.get("format") == "dense" or not section.get("config_groups", section)):
        return None
    return section
