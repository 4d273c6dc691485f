"""Renders messages to a prompt by the model's own chat template, or by the convention of its family."""

import asyncio
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peregrine_router.text.special_tokens import EscapedPrompt, SpecialTokenEscaper
from peregrine_router.text.template_files import (
    DEFAULT,
    TOOL_USE,
    declared_tokens,
    named,
    read_templates,
)
from peregrine_router.text.template_process import TemplateError, TemplateProcess
from peregrine_router.text.token_spans import TokenSpans
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_router.text.tokenizer_files import read_tokenizer_config

NOT_RENDERED = "the chat template does not write the last message, so it cannot be continued: end with another role"
NO_TEMPLATE = "this model has no chat template: use /v1/completions, or start the server with --tokenizer-config-path"


@dataclass(frozen=True, slots=True)
class Family:
    """Chat convention of a family of models whose files hold no template."""

    name: re.Pattern[str]
    """Found in the last part of the model id, in lower case."""
    template: str


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
    Family(re.compile(r"falcon-(7b|40b)-instruct"), _turns("", "User:", "Assistant:")),
    Family(re.compile(r"falcon-demo"), _turns("", "User:", "Assistant:")),
    Family(re.compile(r"falcon-180b-chat"), _turns("System: ", "User:", "Falcon:")),
)
"""The first match counts. A template in the model's files takes precedence."""
USER_LABEL = "\nUser"
"""How the user's turn begins in all of them. A model may write it where its own turn ends, whatever the template."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """Rendering of a chat: what a request may say of it beside messages and tools."""

    is_continued: bool | None = None
    """Whether the prompt ends within the last message. None: if that is the assistant's, and text."""
    adds_generation_prompt: bool = True
    """Whether the assistant's turn is begun, if the last message is not continued."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the template."""


DEFAULT_RENDERING = Rendering()


class Chat:
    """Renders conversations for one model."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str | None,
        special_tokens: dict[str, str],
        speaker_labels: tuple[str, ...] = (),
        tool_template: str | None = None,
    ) -> None:
        """`special_tokens`: variables of every rendering, such as `eos_token`; `speaker_labels`: see
        `Request`; `tool_template`: the template of chats with tools, if they have one of their own."""
        self.template = template
        self.special_tokens = special_tokens
        self._sources = (template or "") + (tool_template or "")
        self._process = None if template is None else TemplateProcess(template)
        self._tool_process = self._process if tool_template is None else TemplateProcess(tool_template)
        self._special = SpecialTokenEscaper(tokenizer)
        # One thread: several would take the GIL in turns, and the event loop would wait for all of them.
        self._escaping = ThreadPoolExecutor(1, thread_name_prefix="escape")
        self.speaker_labels = speaker_labels
        self.knows_tools = re.search(r"\btools\b", tool_template or template or "") is not None
        """Whether the template renders `tools` itself."""

    @classmethod
    def load(cls, path: Path, model_id: str, tokenizer: Tokenizer, config_path: str | None = None) -> "Chat":
        """Reads a model's folder. `config_path`, a tokenizer_config.json, takes precedence.

        Raises ValueError or OSError.
        """
        name = model_id.rstrip("/").rpartition("/")[2].lower()
        family = next((each for each in FAMILIES if each.name.search(name)), None)
        config = read_tokenizer_config(path)
        tokens = declared_tokens(config)
        if config_path is not None:
            given = json.loads(Path(config_path).read_bytes())
            templates = named(given)
            tokens |= declared_tokens(given)
        else:
            templates = read_templates(path, config)
            if family:
                templates.setdefault(DEFAULT, family.template)
        labels = (USER_LABEL,) if family else ()
        return cls(tokenizer, templates.get(DEFAULT), tokens, labels, templates.get(TOOL_USE))

    async def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        rendering: Rendering = DEFAULT_RENDERING,
    ) -> EscapedPrompt:
        """The prompt. If the last message is continued, the prompt ends with it.

        Raises TemplateError, TemplateProcessDied, InvalidRequest.
        """
        process = self._process if tools is None else self._tool_process
        if process is None:
            raise TemplateError(NO_TEMPLATE)
        # On a thread: escaping a message of megabytes would block the event loop.
        variables = {**rendering.variables, "messages": messages, "tools": tools}
        sentinel, tag, given = await asyncio.get_running_loop().run_in_executor(
            self._escaping, self._protect, variables
        )
        is_continued = _is_continued(messages[-1]) if rendering.is_continued is None else rendering.is_continued
        if is_continued:
            given["messages"][-1]["content"] += tag
        given["add_generation_prompt"] = rendering.adds_generation_prompt and not is_continued
        prompt = asyncio.ensure_future(process.render({**self.special_tokens, **given}))
        prompt.add_done_callback(_retrieve)
        # A client that leaves does not end the process, whose start the next client would wait for.
        text = await asyncio.shield(prompt)
        return EscapedPrompt(_until(text, tag) if is_continued else text, sentinel)

    def _protect(self, variables: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        """(sentinel, tag of the last message's end, variables): both characters occur in no message and template."""
        # `documents` is None for transformers' templates: undefined, `is not none` would hold.
        given = {"documents": None, **variables}
        present = json.dumps(given, ensure_ascii=False) + self._sources
        sentinel = self._special.unused_sentinel(present)
        tag = self._special.unused_sentinel(present + sentinel)
        # The names of variables are the template's.
        protected = {name: self._special.protect(each, sentinel) for name, each in given.items()}
        # Roles are not the client's to choose, and templates compare them.
        for message, original in zip(protected["messages"], given["messages"], strict=True):
            message["role"] = original["role"]
        return sentinel, tag, protected

    def encode(self, prompt: EscapedPrompt) -> tuple[int, ...]:
        """Token ids of a rendered prompt. Takes long for a long one: call it on a thread."""
        return self._special.encode(prompt)

    def spans(self, prompt: EscapedPrompt) -> TokenSpans:
        """The tokens, and where they stand in `prompt.plain`."""
        return self._special.spans(prompt)

    async def close(self) -> None:
        """Ends the templates' processes."""
        self._escaping.shutdown(wait=False, cancel_futures=True)
        for process in (self._process, self._tool_process):
            if process is not None:
                await process.close()


def _is_continued(last: dict[str, Any]) -> bool:
    return last["role"] == "assistant" and not last.get("tool_calls") and bool(str(last.get("content") or "").strip())


def _retrieve(rendering: "asyncio.Future[str]") -> None:
    """Looks at the error of a rendering that nobody waits for any more, or asyncio would log it."""
    if not rendering.cancelled():
        rendering.exception()


def _until(text: str, tag: str) -> str:
    """Cuts off whatever the template writes behind the assistant's last message, whose end `tag` marks.

    As `continue_final_message` of transformers, but white space at the message's end stays even if the template trims
    it: the client appends the answer to the message as it is.
    """
    before, found, _ = text.rpartition(tag)
    if not found:
        raise TemplateError(NOT_RENDERED)
    return before.replace(tag, "")
