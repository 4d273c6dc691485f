"""Folders for models in GGUF files."""

import fnmatch
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import train_backend
from gguf_checkpoints import MIXES, write_gguf
from lying_checkpoints import load_quantized
from peregrine_router.launch import model_files
from peregrine_router.launch.gguf_folder import make_folder
from peregrine_router.launch.model_files import ModelNotFound, check_files, resolve_model
from peregrine_router.launch.temporary_folder import remove_temporary_folders
from peregrine_router.planning.models import find_model
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.models.loading.gguf_header import read_header
from peregrine_server.models.registry import load_config

EXAMPLES = int(os.environ.get("PEREGRINE_FOLDER_EXAMPLES", "200"))
SIZES = (0, 1, 2, 3, 7, 31, 33, 256, 2**16, 2**20, 2**24, 2**31, 2**32 - 1, 2**40, 2**60, 2**63, 2**64 - 1)


def write(file: Path, types: str = "Q4_0", **settings: Any) -> Path:
    """A file with a tokenizer."""
    write_gguf(file, "40b", MIXES[types], **{"tokenizer": train_backend(), "eos_token_id": 0, **settings})
    return file


@pytest.mark.parametrize("names_file", [True, False])
def test_a_gguf_file_is_a_model(names_file: bool, tmp_path: Path) -> None:
    """By its path, or by that of the folder in which it is the only one; all that is read of a model is there."""
    file = write(tmp_path / "falcon-q4.gguf")
    (tmp_path / "README.md").touch()
    folder = resolve_model(str(file if names_file else tmp_path), None, None)
    check_files(folder)
    assert load_config(folder).summary() == "1 layers, 8 heads, 2 KV heads, vocabulary 300"
    assert Tokenizer.load(folder).eos_token_ids == {0}
    assert load_quantized(folder).config == load_config(folder)


def test_folders_are_removed(tmp_path: Path) -> None:
    """They link to the model's files, which stay."""
    file = write(tmp_path / "falcon.gguf")
    folder = make_folder(file)
    remove_temporary_folders()
    assert not folder.exists()
    assert file.exists()


def test_safetensors_come_first(tmp_path: Path) -> None:
    """A folder of any other weights is taken as it is."""
    write(tmp_path / "falcon.gguf")
    (tmp_path / "model.safetensors").touch()
    assert resolve_model(str(tmp_path), None, None) == tmp_path


def test_of_several_files_one_is_named(tmp_path: Path) -> None:
    """The start does not choose."""
    for name in "a.gguf", "b q4_0.gguf":
        (tmp_path / name).touch()
    line = f"peregrine serve --model-id '{tmp_path}/b q4_0.gguf'"
    message = f"{tmp_path} holds several GGUF files (b q4_0.gguf, a.gguf): choose one, as in `{line}`"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resolve_model(str(tmp_path), None, None)


def test_files_beside_count_more(tmp_path: Path) -> None:
    """The original model's tokenizer, templates and settings are linked, and its config.json is joined."""
    file = write(tmp_path / "falcon.gguf")
    files: dict[str, dict[str, Any]] = {"generation_config.json": {"top_k": 3}, "tokenizer_config.json": {"a": 1}}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "RefinedWeb", "rope_theta": 5.0}))
    backend = train_backend()
    backend.add_tokens(["<|new|>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    folder = make_folder(file)
    for name, content in files.items():
        assert json.loads((folder / name).read_text()) == content
    assert json.loads((folder / "config.json").read_text())["rope_theta"] == 5
    assert Tokenizer.load(folder).encode("<|new|>") == [backend.token_to_id("<|new|>")]


def test_a_set_of_files_is_one_model(tmp_path: Path) -> None:
    """As llama.cpp splits it; any of them stands for it."""
    write(tmp_path / "falcon.gguf", max_tensors=3)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert [part.name for part in parts][:1] == ["falcon-00001-of-00004.gguf"]
    for path in tmp_path, parts[1]:
        folder = resolve_model(str(path), None, None)
        assert load_quantized(folder).config == load_config(folder)
    parts[2].rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"falcon-00003-of-00004.gguf is missing: download all 4 parts"):
        make_folder(parts[0])


def test_parts_of_other_numbers_are_named(tmp_path: Path) -> None:
    """A part in place of another, or a whole file under a part's name."""
    write(tmp_path / "falcon.gguf", max_tensors=3)
    first, second = sorted(tmp_path.glob("*.gguf"))[:2]
    second.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"00002-of-00004.gguf is part 0 of 4, as it says: give all parts"):
        make_folder(first)


def test_a_file_without_a_tokenizer_says_what_lacks(tmp_path: Path) -> None:
    """In one line with the file's name, before a shard starts."""
    file = write(tmp_path / "falcon.gguf", tokenizer=None)
    with pytest.raises(ValueError, match=r"^[^\n]*falcon.gguf: it has no tokenizer; put the tok"):
        make_folder(file)
    train_backend().save(str(tmp_path / "tokenizer.json"))
    assert (make_folder(file) / "tokenizer.json").is_symlink()


def test_one_file_of_a_repository_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OWNER/NAME/FILE.gguf: repositories hold ten of them, of gigabytes each."""
    asked: list[object] = []

    def download(repository: str, *, allow_patterns: list[str], **_: object) -> str:
        asked.append((repository, allow_patterns[-1]))
        write(tmp_path / "falcon.gguf")
        return str(tmp_path)

    monkeypatch.setattr(model_files, "snapshot_download", download)
    folder = resolve_model("owner/name/falcon.gguf", None, None)
    assert load_config(folder).vocab_size == 300
    with pytest.raises(ModelNotFound, match=r"^there is no other-00001-of-00002.gguf in .*: check --model-id$"):
        resolve_model("owner/name/other-00001-of-00002.gguf", None, None)
    assert asked == [("owner/name", "falcon.gguf"), ("owner/name", "other-*-of-00002.gguf")]


def hub_of(monkeypatch: pytest.MonkeyPatch, folder: Path, names: list[str]) -> list[str]:
    """A hub whose repositories have files of these `names`, which are fetched to `folder`; the patterns asked for."""
    asked: list[str] = []

    def download(repository: str, *, allow_patterns: list[str], **_: object) -> str:
        asked.append(allow_patterns[-1])
        for name in fnmatch.filter(names, allow_patterns[-1]):
            write(folder / name)
        return str(folder)

    monkeypatch.setattr(model_files, "snapshot_download", download)
    monkeypatch.setattr(model_files, "list_repo_files", lambda *_, **__: names)
    return asked


def test_the_only_file_of_a_repository_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OWNER/NAME, which has no other weights."""
    asked = hub_of(monkeypatch, tmp_path, ["README.md", "falcon.gguf"])
    assert load_config(resolve_model("owner/name", None, None)).vocab_size == 300
    assert asked == ["*.safetensors", "*.bin", "falcon.gguf"]


def test_of_a_repositorys_files_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line with the names and the line that serves one; none is fetched."""
    names = ["falcon-q2_k.gguf", "falcon-q4_0.gguf", "q8_0/falcon-00001-of-00002.gguf"]
    asked = hub_of(monkeypatch, tmp_path, names)
    line = "peregrine serve --model-id owner/name/falcon-q4_0.gguf"
    listed = "falcon-q4_0.gguf, q8_0/falcon-00001-of-00002.gguf, falcon-q2_k.gguf"
    message = f"owner/name holds several GGUF files ({listed}): choose one, as in `{line}`"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resolve_model("owner/name", None, None)
    assert asked == ["*.safetensors", "*.bin"]


def test_a_hub_that_lists_nothing_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the network, what was fetched before is served."""
    hub_of(monkeypatch, tmp_path, [])

    def fail(*_: object, **__: object) -> list[str]:
        raise RuntimeError("offline")

    monkeypatch.setattr(model_files, "list_repo_files", fail)
    assert resolve_model("owner/name", None, None) == tmp_path
    write(tmp_path / "falcon.gguf")
    assert load_config(resolve_model("owner/name", None, None)).vocab_size == 300


def test_files_are_planned(tmp_path: Path) -> None:
    """Quantized ones as they are."""
    for types, has_any in ("F16", True), ("Q4_0", False):
        found = find_model(str(write(tmp_path / f"{types}.gguf", types)))
        assert found.name == str(tmp_path / f"{types}.gguf")
        assert (found.stored is None) == has_any


def test_what_is_no_file_of_text_is_not_read(tmp_path: Path) -> None:
    """A pipe called config.json would wait for ever."""
    file = write(tmp_path / "falcon.gguf")
    os.mkfifo(tmp_path / "config.json")
    os.mkfifo(tmp_path / "tokenizer.json")
    assert Tokenizer.load(make_folder(file)).eos_token_ids == {0}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A file, and the bytes of its header."""
    file = write(tmp_path_factory.mktemp("gguf") / "falcon.gguf", "Q4_K_M of 40B")
    return file, min(tensor.offset for tensor in read_header(file).tensors.values())


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 1),
            st.one_of(
                st.binary(min_size=1, max_size=8), st.sampled_from(SIZES).map(lambda size: size.to_bytes(8, "little"))
            ),
        ),
        min_size=1,
        max_size=3,
    ),
    st.floats(0.9, 1),
)
def test_any_damage_is_read_or_refused_in_one_line(
    sound: tuple[Path, int], damages: list[tuple[float, bytes]], kept: float
) -> None:
    """Header, config, tokenizer and weights: nothing but a ValueError comes of them."""
    file, header_bytes = sound
    data = bytearray(file.read_bytes())
    for place, content in damages:
        at = int(place * header_bytes)
        data[at : at + len(content)] = content
    with tempfile.TemporaryDirectory() as folder:
        damaged = Path(folder) / "falcon.gguf"
        damaged.write_bytes(data if kept > 0.95 else data[: int(kept * len(data))])
        error = error_of(damaged)
    assert error is None or "\n" not in error


def error_of(file: Path) -> str | None:
    """The error of serving a file, None if there is none."""
    try:
        folder = make_folder(file)
        Tokenizer.load(folder, load_config(folder).vocab_size)
        load_quantized(folder)
    except ValueError as error:
        return str(error)
    finally:
        remove_temporary_folders()
    return None
