"""The build of the native kernels."""

import pytest
from hatch_build import find_compiler


def test_cc_names_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its options, as make and setuptools read it; empty is as good as not set."""
    monkeypatch.setenv("CC", "ccache 'my gcc' -m64")
    assert find_compiler() == ["ccache", "my gcc", "-m64"]
    monkeypatch.setenv("CC", " ")
    found = find_compiler()
    monkeypatch.delenv("CC")
    assert found == find_compiler()
