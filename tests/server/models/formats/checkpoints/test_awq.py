"""Settings of AWQ, sound and otherwise."""

import pytest

from gptq_awq_checkpoints import Awq
from lying_checkpoints import refusal
from peregrine_server.models.formats.checkpoints.awq import read_scheme


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("bits", 8, "bits 8"),
        ("version", "gemv", "version 'gemv'"),
        ("version", "gemv_fast", "version 'gemv_fast'"),
        ("version", "marlin", "version 'marlin'"),
        ("version", 1, "version 1"),
        ("backend", "llm-awq", "backend 'llm-awq'"),
        ("zero_point", False, "zero_point False"),
        ("group_size", -2, "group_size must be between"),
    ],
)
def test_what_is_not_read_is_refused(key: str, value: object, named: str) -> None:
    """In one line that names the key."""
    assert named in refusal(read_scheme, {**Awq().quantization_config(), key: value})


def test_older_keys_are_read() -> None:
    """w_bit and q_group_size, and a version in capitals."""
    settings = {"w_bit": 4, "q_group_size": 16, "zero_point": True, "version": "GEMM"}
    assert read_scheme(settings) == read_scheme(Awq().quantization_config())
