"""Renders messages to a prompt by the model's own chat template, or by the convention of its family."""

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peregrine_router.text.special_tokens import EscapedPrompt, SpecialTokenEscaper
from peregrine_router.text.template_process import TemplateError, TemplateProcess
from peregrine_router.text.tokenizer import Tokenizer, read_json

NO_TEMPLATE = "this model has no chat template: use /v1/completions, or start the server with --tokenizer-config-path"


@dataclass(frozen=True, slots=True)
class Family:
    """Chat convention of a family of models whose files hold no template."""

    name: re.Pattern[str]
    """Found in the last part of the model id, in lower case."""
    template: str
    stop: tuple[str, ...]
    """Stop sequences of every chat, besides the request's."""


def _turns(system: str, user: str, assistant: str) -> str:
    """A template that writes one turn a line, behind the speaker's label."""
    return (
        "{% for message in messages %}"
        "{% if message.role == 'assistant' %}{{ '" + assistant + " ' }}"
        "{% elif message.role == 'system' %}{{ '" + system + "' }}"
        "{% else %}{{ '" + user + " ' }}{% endif %}"
        "{{ message.content | trim + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + assistant + "' }}{% endif %}"
    )


FAMILIES = (
    Family(re.compile(r"falcon-(7b|40b)-instruct"), _turns("", "User:", "Assistant:"), ("\nUser",)),
    Family(re.compile(r"falcon-demo"), _turns("", "User:", "Assistant:"), ("\nUser:",)),
    Family(re.compile(r"falcon-180b-chat"), _turns("System: ", "User:", "Falcon:"), ("\nUser:",)),
)
"""The first match counts. A template in the model's files takes precedence; the stop sequences apply all the same."""


class Chat:
    """Renders conversations for one model."""

    def __init__(
        self, tokenizer: Tokenizer, template: str | None, variables: dict[str, Any], stop: tuple[str, ...] = ()
    ) -> None:
        """`variables`: passed to every rendering, such as `eos_token`; `stop`: stop sequences besides the request's."""
        self._variables = variables
        self._template = template
        self._process = None if template is None else TemplateProcess(template)
        self._special = SpecialTokenEscaper(tokenizer)
        self.stop = stop
        self.knows_tools = re.search(r"\btools\b", template or "") is not None
        """Whether the template renders `tools` itself."""

    @classmethod
    def load(cls, path: Path, model_id: str, tokenizer: Tokenizer, config_path: str | None = None) -> "Chat":
        """Reads a model's folder. The template of `config_path`, a tokenizer_config.json, takes precedence.

        Raises ValueError or OSError.
        """
        config = read_json(path / "tokenizer_config.json")
        tokens = {name: _token(config.get(name)) for name in ("bos_token", "eos_token")}
        name = model_id.rstrip("/").rpartition("/")[2].lower()
        family = next((each for each in FAMILIES if each.name.search(name)), None)
        if config_path is not None:
            template = _for_chat(json.loads(Path(config_path).read_bytes()).get("chat_template"))
        else:
            template = _own_template(path, config) or (family.template if family else None)
        return cls(tokenizer, template, tokens, family.stop if family else ())

    async def render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> EscapedPrompt:
        """The prompt. If the last message is the assistant's, the prompt ends with it, to be continued.

        Raises TemplateError, InvalidRequest.
        """
        if self._process is None:
            raise TemplateError(NO_TEMPLATE)
        # On a thread: escaping a message of megabytes would block the event loop.
        sentinel, given = await asyncio.to_thread(self._protect, {"messages": messages, "tools": tools})
        text = await self._process.render({**self._variables, **given, "add_generation_prompt": True})
        return EscapedPrompt(_continued(text, given["messages"][-1]), sentinel)

    def _protect(self, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        sentinel = self._special.unused_sentinel(json.dumps(given, ensure_ascii=False) + (self._template or ""))
        return sentinel, self._special.protect(given, sentinel)

    def encode(self, prompt: EscapedPrompt) -> tuple[int, ...]:
        """Token ids of a rendered prompt. Takes long for a long one: call it on a thread."""
        return self._special.encode(prompt)

    def spans(self, prompt: EscapedPrompt) -> list[tuple[int, int, int]]:
        """(id, start, stop) of each token; `start` and `stop` count characters of `prompt.plain`."""
        return self._special.spans(prompt)

    async def close(self) -> None:
        """Ends the template's process."""
        if self._process is not None:
            await self._process.close()


def _continued(text: str, last: dict[str, Any]) -> str:
    """Cuts off whatever the template writes behind the assistant's last message, as TGI does."""
    content = str(last.get("content") or "").strip()
    if last["role"] != "assistant" or not content:
        return text
    at = text.rfind(content)
    return text if at < 0 else text[: at + len(content)]


def _own_template(path: Path, config: dict[str, Any]) -> str | None:
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text()
    return _for_chat(read_json(path / "chat_template.json").get("chat_template")) or _for_chat(
        config.get("chat_template")
    )


def _for_chat(template: Any) -> str | None:
    """The template for chat: the field itself, or the one named `default` of a list."""
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _token(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
