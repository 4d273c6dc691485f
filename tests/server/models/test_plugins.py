"""Entry points of installed packages."""

import sys
from pathlib import Path

import pytest

from peregrine_server.models.formats.registry import weight_format
from peregrine_server.models.plugins import PluginError, plugin
from plugins import plugin_environment
from toy_format import HalvesFormat

GROUP = "peregrine.weight_formats"


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    plugin_environment(folder, GROUP, "mine", value)
    monkeypatch.syspath_prepend(folder)


def test_the_object_of_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object that the package names is imported."""
    install(tmp_path, monkeypatch, "toy_format:HalvesFormat")
    assert plugin(GROUP, "mine") is HalvesFormat
    assert weight_format("mine").name == "halves"


def test_nobody_offers_the_name() -> None:
    """Without such a package there is nothing to load."""
    assert plugin(GROUP, "mine") is None


@pytest.mark.parametrize(
    ("module", "cause"),
    [
        ("", "module 'broken' has no attribute 'Format'"),
        ("import nowhere", "No module named 'nowhere'"),
        ("raise RuntimeError", "RuntimeError"),
    ],
)
def test_a_broken_package_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, cause: str
) -> None:
    """Any error of its module becomes one for the operator."""
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    (tmp_path / "broken.py").write_text(module)
    install(tmp_path, monkeypatch, "broken:Format")
    with pytest.raises(PluginError) as error:
        plugin(GROUP, "mine")
    assert str(error.value) == (
        f"broken:Format, which an installed package offers as {GROUP} mine, cannot be imported ({cause}): "
        "repair that package, or uninstall it"
    )
