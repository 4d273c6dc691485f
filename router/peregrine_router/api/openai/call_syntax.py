"""JSON of tool calls as models write it, decoded into names and arguments.

A call is {"name": ..., "arguments": {...}} in any key order; Llama's name of the arguments is `parameters`. OpenAI's
form, {"id": ..., "type": "function", "function": {...}} with arguments as text, is what a model copies from the
conversation. Several calls can be a list. Any further key makes it no call: a tool's definition has a `description`.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

_HEAD = re.compile(r"(?:\[\s*)?(?:(?P<brace>\{)\s*)?(?P<rest>.*)", re.DOTALL)
_FIRST_KEY = re.compile(r'"([^"\\]*)"(?:\s*:\s*"([^"\\]*)")?')
MAX_HEAD = 512
"""Characters from which the first key and name are read; names have at most 64."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call; `arguments` is the text of a JSON object."""

    name: str
    arguments: str


class _Function(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    arguments: Raw | UnsetType = UNSET
    parameters: Raw | UnsetType = UNSET
    id: Any = None
    type: Any = None


class _Wrapper(msgspec.Struct, forbid_unknown_fields=True):
    function: _Function
    id: Any = None
    type: Any = None
    index: Any = None


KEYS = frozenset({*_Function.__struct_fields__, *_Wrapper.__struct_fields__})
_decode_function = msgspec.json.Decoder(_Function).decode
_decode_wrapper = msgspec.json.Decoder(_Wrapper).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


def parse_calls(text: str, names: Collection[str]) -> list[Call]:
    """Decodes a JSON object or array. Returns its calls; none unless all of it is calls of tools in `names`."""
    if not may_be_call(text, names):
        return []
    try:
        values = [bytes(raw) for raw in _decode_list(text)] if text.startswith("[") else [text.encode()]
        calls = [_call(value) for value in values]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
    return calls if all(call.name in names for call in calls) else []


def may_be_call(head: str, names: Collection[str]) -> bool:
    """Whether JSON that begins with `head` may be a call: judged by its first key, and by the name if that is first.

    Once it is False, it is so for every continuation.
    """
    parts = _HEAD.match(head[:MAX_HEAD])
    rest = parts["rest"] if parts else ""
    if not rest:
        return True
    if not parts or not parts["brace"] or not rest.startswith('"'):
        return False
    key = _FIRST_KEY.match(rest)
    if key is None:
        return True
    return key[1] in KEYS and (key[1] != "name" or key[2] is None or key[2] in names)


def _call(value: bytes) -> Call:
    try:
        function = _decode_wrapper(value).function
    except msgspec.ValidationError:
        function = _decode_function(value)
    (arguments,) = (raw for raw in (function.arguments, function.parameters) if raw is not UNSET)
    text = bytes(arguments).decode().strip()
    if text.startswith('"'):
        text = _decode_text(text)
    _decode_object(text)
    return Call(function.name, text)
