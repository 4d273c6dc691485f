"""Requests of the largest size that were made to take long: bodies wrong in every item, and texts."""

from collections.abc import Callable
from functools import partial

BODY_BYTES = 2_000_000
"""Size of the largest body, by default."""
CHAT = '"messages":[{"role":"user","content":"a"}]'
NAMES = ",".join(f'"x{number}":0' for number in range(160_000))
BODIES: dict[str, tuple[str, str, str, str]] = {
    "fractions as token ids": ("/v1/completions", '{"prompt":[', "1.5", "]}"),
    "empty lists as prompts": ("/v1/completions", '{"prompt":[', "[]", "]}"),
    "one token id": ("/v1/completions", '{"prompt":[', "7", "]}"),
    "prompts of one token id": ("/v1/completions", '{"prompt":[', "[7]", "]}"),
    "texts and then a number": ("/v1/completions", '{"prompt":[1.5,', '"a"', "]}"),
    "stop": ("/v1/completions", '{"prompt":"a","stop":[', "1", "]}"),
    "stop of TGI": ("/generate", '{"inputs":"a","parameters":{"stop":[', "1", "]}}"),
    "stop_token_ids": ("/v1/completions", '{"prompt":"a","stop_token_ids":[', "-1", "]}"),
    "logit_bias": ("/v1/completions", '{"prompt":"a","logit_bias":{' + NAMES, ',"1":0', "}}"),
    "messages": ("/v1/chat/completions", '{"messages":[', "{}", "]}"),
    "short messages": ("/v1/chat/completions", '{"messages":[', '{"role":"user","content":"a"}', "]}"),
    "parts": ("/v1/chat/completions", '{"messages":[{"role":"user","content":[', '{"type":"text","text":"a"}', "]}]}"),
    "tool_calls": ("/v1/chat/completions", '{"messages":[{"role":"assistant","tool_calls":[', "{}", "]}]}"),
    "tools": ("/v1/chat/completions", f'{{{CHAT},"tools":[', "{}", "]}"),
    "functions": ("/v1/chat/completions", f'{{{CHAT},"functions":[', "{}", "]}"),
    "instances": ("/vertex", '{"instances":[', "0", "]}"),
    "instances that are objects": ("/vertex", '{"instances":[', "{}", "]}"),
    "invocation": ("/invocations", '{"prompt":[', "1.5", "]}"),
    "tokens": ("/detokenize", '{"tokens":[', "-1", "]}"),
    "names nobody asked for": ("/generate", '{"inputs":"a","x":{' + NAMES, ',"a":0', "}}"),
    "nesting": ("/generate", '{"inputs":"a","x":[', "[" * 150 + "]" * 150, "]}"),
}
"""Name -> path, beginning, item, end. Some are the largest that are taken, most are refused as a whole."""
MESSAGE = '{"messages":[{"role":"user","content":"', '"}],"max_tokens":1}'
TEXTS: dict[str, tuple[str, str, str, str]] = {
    "chat of >": ("/v1/chat/completions", MESSAGE[0], ">", MESSAGE[1]),
    "chat of é": ("/v1/chat/completions", MESSAGE[0], "é", MESSAGE[1]),
    "chat of words": ("/v1/chat/completions", MESSAGE[0], "a b ", MESSAGE[1]),
    "chat of special tokens": ("/v1/chat/completions", MESSAGE[0], ">>TITLE<<", MESSAGE[1]),
    "prompt that cannot fit": ("/generate", '{"inputs":"', "a b ", '"}'),
    "prompt that cannot fit, OpenAI's": ("/v1/completions", '{"prompt":"', "a b ", '"}'),
    "tokenize": ("/tokenize", '{"inputs":"', "a b ", '"}'),
    "tokenize one word": ("/tokenize", '{"inputs":"', "a", '"}'),
    "tokenize lines": ("/tokenize", '{"inputs":"', "a\\n", '"}'),
    "tokenize é": ("/tokenize", '{"inputs":"', "é", '"}'),
    "tokenize a prompt": ("/tokenize", '{"return_token_strs":true,"prompt":"', "a b ", '"}'),
    "tokenize a chat": ("/tokenize", '{"messages":[{"role":"user","content":"', ">", '"}]}'),
}
"""Name -> path, beginning, what is repeated, end."""


def filled(start: str, item: str, end: str, size: int = BODY_BYTES, separator: str = ",") -> bytes:
    """A body of about `size` bytes: as many of an item as fit between start and end, with commas."""
    count = (size - len(start) - len(end)) // len((item + separator).encode())
    return (start + separator.join([item] * count) + end).encode()


def _body(name: str, size: int) -> tuple[str, bytes]:
    if name in TEXTS:
        path, start, item, end = TEXTS[name]
        return path, filled(start, item, end, size, separator="")
    path, start, item, end = BODIES[name]
    return path, filled(start, item, end, size)


ATTACKS: dict[str, Callable[[int], tuple[str, bytes]]] = {name: partial(_body, name) for name in (*BODIES, *TEXTS)}
"""Name -> what makes path and body of a size."""
ATTACKS["detokenize"] = lambda size: (
    "/detokenize",
    b'{"tokens":[%s]}' % b",".join([b"3000"] * min(size // 5, 131_000)),
)
