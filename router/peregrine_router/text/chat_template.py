"""From messages to a prompt: the model's own chat template, or the convention of its family."""

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
    """How a family of models chats, as its users agreed where its files do not say."""

    name: re.Pattern[str]
    template: str
    stop: tuple[str, ...]


def _turns(system: str, user: str, assistant: str) -> str:
    """A template of lines that begin with who speaks."""
    return (
        "{% for message in messages %}"
        "{% if message.role == 'assistant' %}{{ '" + assistant + " ' }}"
        "{% elif message.role == 'system' %}{{ '" + system + "' }}"
        "{% else %}{{ '" + user + " ' }}{% endif %}"
        "{{ message.content | trim + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + assistant + "' }}{% endif %}"
    )


FALCON3 = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\\n' + message.content | trim + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
FAMILIES = (
    Family(re.compile(r"falcon-(7b|40b)-instruct"), _turns("", "User:", "Assistant:"), ("\nUser",)),
    Family(re.compile(r"falcon-demo"), _turns("", "User:", "Assistant:"), ("\nUser:",)),
    Family(re.compile(r"falcon-180b-chat"), _turns("System: ", "User:", "Falcon:"), ("\nUser:",)),
    Family(re.compile(r"falcon-?3-.*instruct"), FALCON3, ()),
)
"""By the model's name in lower case. A template in the model's files wins; the stop sequences hold all the same."""


class Chat:
    """Renders conversations for one model."""

    def __init__(
        self, tokenizer: Tokenizer, template: str | None, variables: dict[str, Any], stop: tuple[str, ...] = ()
    ) -> None:
        """`variables` are the template's own, such as `eos_token`; `stop` ends an answer besides the request's."""
        self._variables = variables
        self._template = template
        self._process = None if template is None else TemplateProcess(template)
        self._special = SpecialTokenEscaper(tokenizer)
        self.stop = stop
        self.knows_tools = re.search(r"\btools\b", template or "") is not None
        """Whether the template shows tools to the model."""

    @classmethod
    def load(cls, path: Path, model_id: str, tokenizer: Tokenizer, config_path: str | None = None) -> "Chat":
        """From a model's folder; `config_path` is a tokenizer_config.json that wins. Raises ValueError or OSError."""
        config = read_json(path / "tokenizer_config.json")
        tokens = {name: _token(config.get(name)) for name in ("bos_token", "eos_token")}
        name = model_id.rstrip("/").rpartition("/")[2].lower()
        family = next((each for each in FAMILIES if each.name.search(name)), None)
        if config_path is not None:
            template = _chosen(json.loads(Path(config_path).read_bytes()).get("chat_template"))
        else:
            template = _own_template(path, config) or (family.template if family else None)
        return cls(tokenizer, template, tokens, family.stop if family else ())

    async def render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> EscapedPrompt:
        """The prompt. A last message of the assistant is to be continued. Raises TemplateError, InvalidRequest."""
        if self._process is None:
            raise TemplateError(NO_TEMPLATE)
        # On a thread: a message of megabytes takes its time.
        sentinel, given = await asyncio.to_thread(self._protect, {"messages": messages, "tools": tools})
        text = await self._process.render({**self._variables, **given, "add_generation_prompt": True})
        return EscapedPrompt(_continued(text, given["messages"][-1]), sentinel)

    def _protect(self, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        sentinel = self._special.unused_sentinel(json.dumps(given, ensure_ascii=False) + (self._template or ""))
        return sentinel, self._special.protect(given, sentinel)

    def encode(self, prompt: EscapedPrompt) -> tuple[int, ...]:
        """The tokens of what was rendered: for a thread, as it takes its time for a long prompt."""
        return self._special.encode(prompt)

    def spans(self, prompt: EscapedPrompt) -> list[tuple[int, int, int]]:
        """(id, start, stop) of the tokens, in characters of the plain prompt."""
        return self._special.spans(prompt)

    async def close(self) -> None:
        """Ends the template's process."""
        if self._process is not None:
            await self._process.close()


def _continued(text: str, last: dict[str, Any]) -> str:
    """TGI's rule: what the template writes after the assistant's own last words is cut off."""
    content = str(last.get("content") or "").strip()
    if last["role"] != "assistant" or not content:
        return text
    at = text.rfind(content)
    return text if at < 0 else text[: at + len(content)]


def _own_template(path: Path, config: dict[str, Any]) -> str | None:
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text()
    return _chosen(read_json(path / "chat_template.json").get("chat_template")) or _chosen(config.get("chat_template"))


def _chosen(template: Any) -> str | None:
    """Files may list several templates by name; `default` is the one for chat."""
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _token(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
