"""The file of keys by which shards on other machines join."""

from pathlib import Path

import pytest

from peregrine_server.machines.curve_keys import CurveKeyError, read_keys, write_keys


def test_keys_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Two pairs, of which only the owner can read the file."""
    file = tmp_path / "keys"
    write_keys(file)
    keys = read_keys(file)
    assert keys.router.secret != keys.shard.secret
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_is_not_overwritten(tmp_path: Path) -> None:
    """Other machines may have its keys."""
    file = tmp_path / "keys"
    write_keys(file)
    before = read_keys(file)
    with pytest.raises(CurveKeyError, match="is there already"):
        write_keys(file)
    assert read_keys(file) == before


def test_a_file_that_all_can_read_is_refused(tmp_path: Path) -> None:
    """Whoever has the keys can be a shard, and gets the prompts."""
    file = tmp_path / "keys"
    write_keys(file)
    file.chmod(0o644)
    with pytest.raises(CurveKeyError, match="chmod 600"):
        read_keys(file)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"router":{"public":"a","secret":"b"},"shard":{"public":"a","secret":"b"}}']
)
def test_what_holds_no_keys_is_refused(tmp_path: Path, text: str) -> None:
    """Also a pair whose halves do not belong together."""
    file = tmp_path / "keys"
    file.touch(mode=0o600)
    file.write_text(text)
    with pytest.raises(CurveKeyError, match="holds no keys: make them with `peregrine keys`"):
        read_keys(file)
