"""Resolves a model id to a folder: the demo model, a local folder, or the hub's cache (downloaded if need be)."""

import os
import re
import stat
from pathlib import Path

from huggingface_hub import list_repo_files, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

import peregrine_server
from peregrine_router.launch.gguf_folder import find_gguf, has_other_weights, make_folder, the_only_one
from peregrine_router.launch.gguf_names import SUFFIX, first_files, set_pattern

DEMO_MODEL_ID = "peregrine/falcon-demo"
SMALL_FILES = ["*.json", "*.jinja", "*.txt"]
"""Patterns of config, tokenizer, chat template, indices. Never *.py: remote code is neither fetched nor run."""
TEXT_SUFFIXES = (".json", ".jinja", ".txt")
MAX_TEXT_BYTES = 256 * 2**20
"""Bound on a file that is read as a whole: the largest tokenizers have 40 MB."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


class ModelNotFound(ValueError):
    """The model cannot be found; the message says in one line what to do."""


def demo_path() -> Path:
    """Folder of the demo model, inside the package."""
    return Path(peregrine_server.__file__).parent / "demo"


def resolve_model(model_id: str | None, revision: str | None, cache: str | None) -> Path:
    """The model's folder, downloaded if necessary. Honours HF_TOKEN and HF_HUB_OFFLINE.

    Raises ModelNotFound, or another ValueError.
    """
    if model_id is None or model_id == DEMO_MODEL_ID:
        return demo_path()
    local = Path(model_id).expanduser()
    if local.is_dir() or (local.suffix == SUFFIX and local.is_file()):
        return local_folder(local)
    is_path = local.is_absolute() or model_id.startswith((".", "~"))
    if local.suffix == SUFFIX and (is_path or model_id.count("/") < 2 or local.parent.is_dir()):
        raise ModelNotFound(f"there is no file {model_id}: check --model-id")
    if is_path:
        raise ModelNotFound(f"{model_id} is not a folder: check --model-id")
    if local.suffix == SUFFIX:
        owner, name, file = model_id.split("/", 2)
        return local_folder(_downloaded(f"{owner}/{name}", revision, cache, file) / file)
    path = _downloaded(model_id, revision, cache)
    if has_other_weights(path) or not (files := first_files(_files_at_hub(model_id, revision))):
        return local_folder(path)
    file = the_only_one(files, model_id)
    return local_folder(_downloaded(model_id, revision, cache, file) / file)


def local_folder(path: Path) -> Path:
    """The folder of the model in a folder, or in a GGUF file. Raises ModelNotFound, or another ValueError."""
    if not path.exists():
        raise ModelNotFound(f"there is no {path.name} in {path.parent}: check --model-id")
    if path.is_file():
        return make_folder(path)
    if not os.access(path, os.R_OK | os.X_OK):
        raise ModelNotFound(f"{path} may not be read: check its permissions, and the server's user")
    file = find_gguf(path)
    return path if file is None else make_folder(file)


def _downloaded(model_id: str, revision: str | None, cache: str | None, file: str | None = None) -> Path:
    """The model's folder in the hub's cache; with one file of weights only, if it is named."""
    try:
        return Path(_download(model_id, revision, cache, file))
    except GatedRepoError:
        raise ModelNotFound(
            f"{model_id} asks for a licence agreement: accept it on its page and set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise ModelNotFound(f"{model_id} has no revision {revision}: check --revision") from None
    except RepositoryNotFoundError:
        raise ModelNotFound(
            f"{model_id} is neither a folder nor a public model on the hub: check --model-id, or set HF_TOKEN"
        ) from None
    except (HFValidationError, ValueError) as error:
        raise ModelNotFound(f"{model_id} is neither a folder nor a model id ({_first_line(error)})") from None
    except PermissionError as error:
        raise ModelNotFound(
            f"{model_id} cannot be read or downloaded: user {os.getuid()} has no access to {error.filename}: "
            "give it to this user, or run as its owner (docker run --user)"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise ModelNotFound(
            f"{model_id} is not in the local cache and the hub cannot be reached ({_first_line(error)}): "
            "connect, or give --model-id a local folder"
        ) from None


def _files_at_hub(model_id: str, revision: str | None) -> list[str]:
    """The names of a repository's files; none where the hub cannot be asked."""
    try:
        return list_repo_files(model_id, revision=revision)
    # Versions of huggingface_hub raise errors of several libraries. The folder's own lack is told then.
    except Exception:
        return []


def check_files(path: Path) -> None:
    """Refuses what in a model's folder would never end or fill the memory: devices, pipes, huge text files.

    Raises ModelNotFound. Links are followed: the hub's cache consists of them.
    """
    for file in path.iterdir():
        try:
            status = file.stat()
        except OSError:
            continue  # As if it were not there; what needs it says so.
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise ModelNotFound(f"{file} is a device or a pipe, not a file: remove it from the model's folder")
        if file.suffix in TEXT_SUFFIXES and status.st_size > MAX_TEXT_BYTES:
            raise ModelNotFound(f"{file} is larger than {MAX_TEXT_BYTES} bytes: it is not the model's; remove it")


def commit_of(path: Path) -> str | None:
    """The commit of a folder that huggingface_hub has written, None of any other.

    Its cache names the folder of a snapshot after the commit; `hf download --local-dir` writes it on the first line of
    a file for each file that it fetches.
    """
    metadata = path / ".cache" / "huggingface" / "download" / "config.json.metadata"
    try:
        name = metadata.read_text().partition("\n")[0].strip()
    except (OSError, ValueError):
        name = path.resolve().name if path.resolve().parent.name == "snapshots" else ""
    return name if _COMMIT.fullmatch(name) else None


def _download(model_id: str, revision: str | None, cache: str | None, file: str | None) -> str:
    def fetch(weights: str) -> str:
        return snapshot_download(model_id, revision=revision, cache_dir=cache, allow_patterns=[*SMALL_FILES, weights])

    if file is not None:
        return fetch(set_pattern(file))
    path = fetch("*.safetensors")
    # An adapter's safetensors may lie beside a model in the legacy format.
    names = ("model*.safetensors*", "gptq_model*.safetensors*", "awq_model*.safetensors*")
    return path if any(any(Path(path).glob(name)) for name in names) else fetch("*.bin")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
