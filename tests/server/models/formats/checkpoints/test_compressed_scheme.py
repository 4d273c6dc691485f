"""`quantization_config` of compressed-tensors, sound and otherwise."""

import copy
from typing import Any

import pytest

from lying_checkpoints import refusal
from peregrine_server.models.formats.checkpoints.compressed_scheme import CompressedScheme, read_scheme
from quantized_checkpoints import LAYOUTS, Layout


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_schemes_are_read(layout: Layout) -> None:
    """Layout, bits, symmetry, and what has a scale."""
    has_tensor_scale = layout.strategy == "tensor"
    assert read_scheme(layout.quantization_config()) == CompressedScheme(
        layout.format, layout.num_bits, layout.is_symmetric, layout.group_size, has_tensor_scale
    )


def changed(path: str, value: object) -> dict[str, Any]:
    """The scheme of 4-bit groups with another value at a path of keys."""
    scheme: dict[str, Any] = copy.deepcopy(LAYOUTS["int4"].quantization_config())
    *keys, last = path.split(".")
    section = scheme
    for key in keys:
        section = section[key]
    section[last] = value
    return scheme


WEIGHTS = "config_groups.group_0.weights"


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("format", "nvfp4-pack-quantized", "format 'nvfp4-pack-quantized'"),
        ("format", None, "format 'None'"),
        ("quantization_status", "initialized", "quantization_status 'initialized'"),
        ("sparsity_config", {"format": "sparse-24-bitmask"}, "sparsity_config"),
        ("transform_config", {"config_groups": {"u": {}}}, "transform_config"),
        ("config_groups", {}, "config_groups must hold one group"),
        ("config_groups", {"a": {}, "b": {}}, "config_groups must hold one group"),
        ("config_groups", ["Linear"], "config_groups must hold one group"),
        ("config_groups.group_0.weights", None, "describes no weights"),
        ("config_groups.group_0.targets", ["re:.*dense"], "targets"),
        ("config_groups.group_0.format", "int-quantized", "format 'int-quantized'"),
        (f"{WEIGHTS}.num_bits", 3, "num_bits 3"),
        (f"{WEIGHTS}.num_bits", True, "num_bits True"),
        (f"{WEIGHTS}.type", "float", "type 'float'"),
        (f"{WEIGHTS}.symmetric", "no", "symmetric 'no'"),
        (f"{WEIGHTS}.dynamic", True, "dynamic True"),
        (f"{WEIGHTS}.strategy", "block", "strategy 'block'"),
        (f"{WEIGHTS}.actorder", "group", "actorder 'group'"),
        (f"{WEIGHTS}.block_structure", [128, 128], "block_structure"),
        (f"{WEIGHTS}.group_size", 0, "group_size must be between"),
        (f"{WEIGHTS}.group_size", 1.5, "group_size must be between"),
        (f"{WEIGHTS}.group_size", 10**30, "group_size must be between"),
    ],
)
def test_what_is_not_read_is_refused(path: str, value: object, named: str) -> None:
    """In one line that names the key."""
    assert named in refusal(read_scheme, changed(path, value))


def test_what_says_nothing_is_accepted() -> None:
    """Sections that other versions write empty."""
    for path, value in (("sparsity_config", {}), ("transform_config", {}), ("sparsity_config", {"format": "dense"})):
        read_scheme(changed(path, value))
    read_scheme(changed("kv_cache_scheme", {"num_bits": 8}))
