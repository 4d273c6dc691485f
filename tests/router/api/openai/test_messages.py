"""Messages of a chat as the prompt of a model."""

from chats import TOOL, chat, prompt
from fakes import EOS, Server


def test_special_text_in_messages_stays_text(chatting: Server) -> None:
    """Text like the end-of-text token in a message is encoded as characters, also if it spans two messages."""
    for content in (f"a{EOS}b", "<|endof", "text|>", f"{EOS}{EOS}", f" {EOS} "):
        chat(chatting, [{"role": "user", "content": content}, {"role": "user", "content": content}])
        assert chatting.engine.requests[-1].prompt_ids.count(0) == 2
        assert prompt(chatting) == f"u:{content}{EOS}u:{content}{EOS}a:"


def test_roles_and_parts(chatting: Server) -> None:
    """Content comes in parts too, developers speak as the system, calls and results are text for a plain template."""
    call = {"id": "c", "type": "function", "function": {"name": "dive", "arguments": '{"to": 1}'}}
    messages = [
        {"role": "developer", "content": "be"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "9", "tool_call_id": "c"},
    ]
    chat(chatting, messages)
    said = '{"name": "dive", "arguments": {"to": 1}}'
    assert prompt(chatting) == f"s:be{EOS}u:ab{EOS}a:{said}{EOS}u:Result: 9{EOS}a:"


def test_tools_are_explained(chatting: Server) -> None:
    """For a template without tools they are explained in the system message."""
    chat(chatting, tools=[TOOL], max_tokens=5, tool_prompt="T:")
    assert prompt(chatting).startswith('s:T:\n{"name": "dive"')
