"""Triton's cache in a read-only folder and one beside it."""

from pathlib import Path

import pytest
from triton import knobs

from peregrine_kernels.gpu.kernel_cache import KernelCache


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what was compiled ahead of time; Triton's own is in `home`."""
    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path / "shipped"))
    monkeypatch.setattr(knobs.cache, "home_dir", str(tmp_path / "home"))
    (tmp_path / "shipped" / "known").mkdir(parents=True)
    (tmp_path / "shipped" / "known" / "kernel.cubin").write_text("code")
    return tmp_path / "shipped"


def test_what_was_compiled_ahead_of_time_is_read_where_it_lies(shipped: Path) -> None:
    """By its key and name."""
    assert KernelCache("known").get_file("kernel.cubin") == str(shipped / "known" / "kernel.cubin")


def test_other_kernels_are_kept_in_a_folder_of_their_own(shipped: Path, tmp_path: Path) -> None:
    """Nothing is written beside those of the image; a second process finds what the first compiled."""
    written = KernelCache("other").put(b"code", "kernel.cubin")
    assert written == KernelCache("other").get_file("kernel.cubin")
    assert Path(written).is_relative_to(tmp_path / "home")
    assert [folder.name for folder in shipped.iterdir()] == ["known"]
