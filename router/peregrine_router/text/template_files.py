"""Chat templates in a model's files, found where transformers finds them, and the special tokens they may name."""

from pathlib import Path
from typing import Any

from peregrine_router.text.tokenizer_files import TokenizerError, read_json

DEFAULT, TOOL_USE = "default", "tool_use"
"""Names of templates: of every chat, and of one with tools if there is one of that name."""


def read_templates(path: Path, config: dict[str, Any]) -> dict[str, str]:
    """Name -> template of a model's folder: its Jinja files, else chat_template.json, else `config`, the content of its
    tokenizer_config.json."""
    return _jinja_files(path) or named(read_json(path / "chat_template.json")) or named(config)


def named(config: dict[str, Any]) -> dict[str, str]:
    """Name -> template of the field `chat_template`: one template, or a list of named ones."""
    field = config.get("chat_template")
    if isinstance(field, list):
        pairs = [(each.get("name"), each.get("template")) for each in field if isinstance(each, dict)]
        return {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    return {DEFAULT: field} if isinstance(field, str) else {}


def declared_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Name -> text of the special tokens that a template may name: those that the content of a tokenizer_config.json
    declares, in fields whose names end in `_token` and in `extra_special_tokens`."""
    extra = config.get("extra_special_tokens")
    fields = {name: field for name, field in config.items() if name.endswith("_token")}
    texts = {name: _text(field) for name, field in {**fields, **(extra if isinstance(extra, dict) else {})}.items()}
    return {name: text for name, text in texts.items() if text is not None}


def _jinja_files(path: Path) -> dict[str, str]:
    files = {file.stem: file for file in sorted((path / "additional_chat_templates").glob("*.jinja"))}
    if (path / "chat_template.jinja").is_file():
        files[DEFAULT] = path / "chat_template.jinja"
    return {name: _read(file) for name, file in files.items()}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{file} is no text ({error}): download it again") from None


def _text(token: Any) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
