"""Weight formats by the name that --quantize takes."""

import subprocess
import sys

import pytest
import torch

from peregrine_kernels import UnsupportedWeight, backend_for
from peregrine_server.models.formats.registry import format_names, weight_format


def test_no_name_is_dense() -> None:
    """Without --quantize the weights stay as they are."""
    assert weight_format(None).name == "dense"


def test_a_backend_without_kernels_refuses_in_one_line() -> None:
    """The error names the option."""
    with pytest.raises(UnsupportedWeight, match=r"^--quantize int8 needs a CPU[^\n]*$"):
        weight_format("int8", backend_for(torch.device("meta")))


def test_an_unknown_name_is_told_the_known_ones() -> None:
    """One line that lists them."""
    with pytest.raises(ValueError, match=r"^--quantize int9 is not known: choose one of int8"):
        weight_format("int9")
    assert format_names() == ("int8",)


def test_formats_are_sized_without_torch() -> None:
    """The router can plan memory for any format."""
    code = (
        "import sys; from peregrine_server.models.formats.registry import weight_format;"
        "assert weight_format('int8').num_bytes(8, 16, 'bfloat16') == 8 * (16 + 8);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
