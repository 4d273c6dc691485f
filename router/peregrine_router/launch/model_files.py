"""Resolves a model id to a folder: the demo model, a local folder, or the hub's cache (downloaded if need be)."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
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

DEMO_MODEL_ID = "peregrine/falcon-demo"
SMALL_FILES = ["*.json", "*.jinja", "*.txt"]
"""Patterns of config, tokenizer, chat template, indices. Never *.py: remote code is neither fetched nor run."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


class ModelNotFound(ValueError):
    """The model cannot be found; the message says in one line what to do."""


def demo_path() -> Path:
    """Folder of the demo model, inside the package."""
    return Path(peregrine_server.__file__).parent / "demo"


def resolve_model(model_id: str | None, revision: str | None, cache: str | None) -> Path:
    """The model's folder, downloaded if necessary. Honours HF_TOKEN and HF_HUB_OFFLINE. Raises ModelNotFound."""
    if model_id is None or model_id == DEMO_MODEL_ID:
        return demo_path()
    local = Path(model_id).expanduser()
    if local.is_dir():
        return local
    if local.is_absolute() or model_id.startswith((".", "~")):
        raise ModelNotFound(f"{model_id} is not a folder: check --model-id")
    try:
        return Path(_download(model_id, revision, cache))
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
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise ModelNotFound(
            f"{model_id} is not in the local cache and the hub cannot be reached ({_first_line(error)}): "
            "connect, or give --model-id a local folder"
        ) from None


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


def _download(model_id: str, revision: str | None, cache: str | None) -> str:
    def fetch(weights: str) -> str:
        return snapshot_download(model_id, revision=revision, cache_dir=cache, allow_patterns=[*SMALL_FILES, weights])

    path = fetch("*.safetensors")
    # An adapter's safetensors may lie beside a model in the legacy format.
    return path if any(Path(path).glob("model*.safetensors*")) else fetch("*.bin")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
