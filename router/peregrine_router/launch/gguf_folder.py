"""A folder for a model in GGUF files, with the files that every other model has beside its weights.

config.json and tokenizer.json are read in many places; of a GGUF file they are written once, as the server starts.
"""

import json
import shlex
from pathlib import Path
from typing import Any

from peregrine_router.launch.gguf_names import PART, SUFFIX, first_files
from peregrine_router.launch.temporary_folder import make_temporary_folder
from peregrine_router.text.gguf_tokenizer import tokenizer_config, tokenizer_json
from peregrine_router.text.tokenizer_files import TokenizerError, read_json
from peregrine_server.models.loading.gguf_header import GgufHeader, read_header
from peregrine_server.models.registry import GGUF_FAMILIES, gguf_config

BESIDE = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("generation_config.json", "chat_template.jinja", "chat_template.json"),
)
"""Files beside a GGUF file that count more than what it says itself; config.json adds to it."""
MAX_CONFIG_BYTES = 2**20


def find_gguf(folder: Path) -> Path | None:
    """The GGUF file, or the first of a set, of a folder that holds no other weights. Raises ValueError for several."""
    if has_other_weights(folder):
        return None
    files = first_files(file.name for file in folder.glob(f"*{SUFFIX}"))
    return folder / the_only_one(files, str(folder)) if files else None


def has_other_weights(folder: Path) -> bool:
    """Whether it holds weights that count more than GGUF files."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))


def the_only_one(files: list[str], place: str) -> str:
    """The file of a list with one. Raises ValueError, with the line that serves the first of several in `place`."""
    if len(files) > 1:
        line = shlex.join(["peregrine", "serve", "--model-id", f"{place}/{files[0]}"])
        raise ValueError(f"{place} holds several GGUF files ({', '.join(files):.300}): choose one, as in `{line}`")
    return files[0]


def make_folder(file: Path) -> Path:
    """A temporary folder for the model in `file`, or in the set that it is a part of. Raises ValueError, OSError."""
    files = _parts(file)
    headers = [read_header(each, GGUF_FAMILIES) for each in files]
    _check_parts(headers)
    config = file.parent / "config.json"
    is_usable = config.is_file() and config.stat().st_size <= MAX_CONFIG_BYTES
    written: dict[str, dict[str, Any]] = {"config.json": gguf_config(headers, read_json(config) if is_usable else {})}
    beside = [file.parent / name for name in BESIDE if (file.parent / name).is_file()]
    written |= _tokenizer_files(headers[0], {each.name for each in beside})
    folder = make_temporary_folder(file.name)
    for name, content in written.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    for each in beside:
        (folder / each.name).symlink_to(each.resolve())
    for number, each in enumerate(files, 1):
        name = "model.gguf" if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.gguf"
        (folder / name).symlink_to(each.resolve())
    return folder


def _parts(file: Path) -> list[Path]:
    part = PART.fullmatch(file.name)
    if part is None:
        return [file]
    count = int(part["count"])
    files = [file.with_name(f"{part['stem']}-{number:05}-of-{count:05}{SUFFIX}") for number in range(1, count + 1)]
    missing = next((each for each in files if not each.is_file()), None)
    if missing is not None:
        raise ValueError(f"{missing} is missing: download all {count} parts")
    return files


def _check_parts(headers: list[GgufHeader]) -> None:
    """Raises ValueError if files say other numbers of themselves than their names."""
    for number, header in enumerate(headers):
        said = header.metadata.get("split.no", 0), header.metadata.get("split.count", 0) or 1
        if said != (number, len(headers)):
            raise ValueError(
                f"{header.path} is part {said[0]} of {said[1]}, as it says: give all parts their own names"
            )


def _tokenizer_files(header: GgufHeader, beside: set[str]) -> dict[str, dict[str, Any]]:
    """The tokenizer's files that are not beside. Raises TokenizerError."""
    written = {}
    if "tokenizer.json" not in beside:
        try:
            written["tokenizer.json"] = tokenizer_json(header.metadata)
        except TokenizerError as error:
            raise TokenizerError(f"{header.path}: {error}") from None
    if "tokenizer_config.json" not in beside:
        written["tokenizer_config.json"] = tokenizer_config(header.metadata)
    return written
