"""The demo's tokenizer: byte-level BPE, one special token, the chat form of falcon-instruct."""

import json
from pathlib import Path

from corpus import Chapter, as_text
from dialogues.make import Turns
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 4096
END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
MAX_POSITIONS = 2048

# "User: ...\nAssistant: ..." as falcon-7b-instruct was trained on; a system message stands in front.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] | trim + '\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] | trim + '\\n' }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] | trim + '\\n' }}"
    "{% else %}{{ raise_exception('Unknown role: ' + message['role']) }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def chat_pieces(system: str | None, turns: Turns) -> list[tuple[str, bool]]:
    """A dialogue as pieces of text, and whether each is to be learnt: the assistant's replies are.

    The text after a reply in the middle is not: the model should end the text after every reply.
    """
    pieces: list[tuple[str, bool]] = [(f"{system}\n", False)] if system else []
    for i, turn in enumerate(turns):
        is_user = i % 2 == 0
        pieces.append((("\n" if i else "") + ("User:" if is_user else "Assistant:"), False))
        pieces.append((f" {turn}", not is_user))
    return [*pieces, (END_OF_TEXT, True)]


def train_tokenizer(chapters: list[Chapter]) -> Tokenizer:
    """Merges from the training text alone; all 256 bytes are in the alphabet, so any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # "Assistant" is not in the novels, and every chat repeats it: one token. "User" stays two.
    tokenizer.train_from_iterator([as_text(chapters), "User: \nAssistant: " * 2000], trainer)
    assert tokenizer.token_to_id(END_OF_TEXT) == END_OF_TEXT_ID
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json, the chat template inside the latter."""
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        add_prefix_space=False,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_POSITIONS,
        chat_template=CHAT_TEMPLATE,
    )
    wrapped.save_pretrained(folder, save_jinja_files=False)
    config = folder / "tokenizer_config.json"
    # transformers 5 writes "TokenizersBackend", a name that transformers 4 does not know; both know this one.
    settings = json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
