"""Settings of GPTQ, sound and otherwise."""

from typing import Any

import pytest

from gptq_awq_checkpoints import Gptq
from lying_checkpoints import refusal
from peregrine_server.models.formats.checkpoints.gptq import read_scheme


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("bits", 2, "bits 2"),
        ("bits", 3, "bits 3"),
        ("bits", None, "bits None"),
        ("bits", True, "bits True"),
        ("checkpoint_format", "marlin", "checkpoint_format 'marlin'"),
        ("is_marlin_format", True, "is_marlin_format True"),
        ("pack_dtype", "int8", "pack_dtype 'int8'"),
        ("dynamic", {"-:mlp": {}}, "dynamic"),
        ("sym", "yes", "sym 'yes'"),
        ("desc_act", 1, "desc_act 1"),
        ("group_size", 0, "group_size must be between"),
        ("group_size", 10**30, "group_size must be between"),
    ],
)
def test_what_is_not_read_is_refused(key: str, value: object, named: str) -> None:
    """In one line that names the key."""
    settings: dict[str, Any] = {**Gptq().quantization_config(), key: value}
    assert named in refusal(read_scheme, settings)


def test_versions_differ_by_their_zero_points() -> None:
    """Without a version it is the first."""
    assert read_scheme(Gptq().quantization_config()).zero_offset == 1
    assert read_scheme(Gptq(version=2).quantization_config()).zero_offset == 0
    assert read_scheme({"bits": 4, "format": "gptq_v2"}).zero_offset == 0


def test_one_group_has_no_order() -> None:
    """act-order matters only where there are several."""
    assert read_scheme(Gptq(group_size=-1, has_act_order=True).quantization_config()).is_ordered
    assert not read_scheme(Gptq(has_act_order=True).quantization_config()).is_ordered
