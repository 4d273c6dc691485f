"""From a model id to a folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peregrine_router.launch import model_files
from peregrine_router.launch.model_files import (
    DEMO_MODEL_ID,
    ModelNotFound,
    check_files,
    commit_of,
    demo_path,
    resolve_model,
)

COMMIT = "898df1396f35e447d5fe44e0a3ccaaaa69f30d36"


def test_the_demo_model_is_in_the_package() -> None:
    """Without a model id, or by its own, it is found and complete."""
    for model_id in (None, DEMO_MODEL_ID):
        assert resolve_model(model_id, None, None) == demo_path()
    assert (demo_path() / "tokenizer.json").is_file()


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """A local folder needs no hub, whatever it is called."""
    assert resolve_model(str(tmp_path), None, None) == tmp_path


@pytest.mark.parametrize("model_id", ["/nowhere/model", "./nowhere", "~/nowhere/model"])
def test_a_path_that_is_no_folder(model_id: str) -> None:
    """A mistyped path is not looked for on the hub; one line names the option to check."""
    with pytest.raises(ModelNotFound, match="is not a folder: check --model-id"):
        resolve_model(model_id, None, None)


@pytest.mark.parametrize(
    "model_id", ["falcon.gguf", "models/falcon.gguf", "./falcon.gguf", "/no/falcon.gguf", "{}/x.gguf"]
)
def test_a_path_that_is_no_gguf_file(model_id: str, tmp_path: Path) -> None:
    """It is looked for at the hub only if it may be OWNER/NAME/FILE.gguf, and no folder here is called so."""
    model_id = model_id.format(tmp_path)
    with pytest.raises(ModelNotFound, match=f"^there is no file {model_id}: check --model-id$"):
        resolve_model(model_id, None, None)


def test_the_commit_of_a_snapshot_is_its_folders_name(tmp_path: Path) -> None:
    """The hub's cache keeps each commit in a folder of its name, whatever branch was asked for."""
    assert commit_of(tmp_path / "models--tiiuae--falcon-7b" / "snapshots" / COMMIT) == COMMIT


def test_the_commit_of_a_download_is_in_its_metadata(tmp_path: Path) -> None:
    """`hf download --local-dir` leaves the commit, an etag and a time beside the files."""
    metadata = tmp_path / ".cache" / "huggingface" / "download" / "config.json.metadata"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"{COMMIT}\nf5aa\n1767225600.5\n")
    assert commit_of(tmp_path) == COMMIT


def test_a_folder_of_ones_own_has_no_commit(tmp_path: Path) -> None:
    """Neither has the demo model, nor a folder whose name only looks like a commit."""
    for path in (tmp_path, demo_path(), tmp_path / COMMIT):
        assert commit_of(path) is None


@pytest.mark.parametrize(
    ("files", "legacy"),
    [
        (["model.safetensors"], False),
        (["model.safetensors.index.json", "falcon-1.safetensors"], False),
        (["model-00001-of-00002.safetensors"], False),
        (["adapter_model.safetensors"], True),
        ([], True),
    ],
)
def test_legacy_files_are_downloaded_for_want_of_a_models_safetensors(
    files: list[str], legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.bin` files are fetched unless the repository has the model as safetensors; an adapter is no model."""
    patterns: list[str] = []

    def download(*_: object, allow_patterns: list[str], **options: Any) -> str:
        patterns.extend(allow_patterns)
        for name in files:
            (tmp_path / name).touch()
        return str(tmp_path)

    monkeypatch.setattr(model_files, "snapshot_download", download)
    monkeypatch.setattr(model_files, "list_repo_files", lambda *_, **__: files)
    assert resolve_model("x/y", None, None) == tmp_path
    assert ("*.bin" in patterns) == legacy


def test_a_cache_without_access_is_named_with_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker makes the folder of a volume as root, and the server is not root."""

    def download(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", "/data/hub")

    monkeypatch.setattr(model_files, "snapshot_download", download)
    with pytest.raises(ModelNotFound, match=r"user \d+ has no access to /data/hub: give it to this user"):
        resolve_model("x/y", None, None)


def test_what_never_ends_is_no_model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device or a pipe in the folder, or a text file of many megabytes, is refused before anything is read of it."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "missing.json").symlink_to("/nowhere")
    (tmp_path / "subfolder.json").mkdir()
    check_files(tmp_path)
    makers: dict[str, Callable[[Path], None]] = {"a": lambda file: file.symlink_to("/dev/zero"), "b": os.mkfifo}
    for name, make in makers.items():
        make(tmp_path / name)
        with pytest.raises(ModelNotFound, match=f"/{name} is a device or a pipe, not a file"):
            check_files(tmp_path)
        (tmp_path / name).unlink()
    monkeypatch.setattr(model_files, "MAX_TEXT_BYTES", 1)
    with pytest.raises(ModelNotFound, match=r"config\.json is larger than 1 bytes"):
        check_files(tmp_path)
