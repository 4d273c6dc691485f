"""A tokenizer for the benchmark's model: 65,024 tokens, each with a text of its own, and no merges.

Servers that need a tokenizer start with it. A character of ASCII is one token; every sampled id decodes to some text,
so that no server holds a token back.
"""

import itertools
import json
import string
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

END_OF_TEXT = "<|endoftext|>"


def make_tokenizer(path: Path, vocab_size: int, end_of_text_id: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json to the model's folder, unless they are there."""
    if (path / "tokenizer.json").exists():
        return
    vocab = {text: id for id, text in enumerate(texts(vocab_size, end_of_text_id))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True)])
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    tokenizer.save(str(path / "tokenizer.json"))


def texts(vocab_size: int, end_of_text_id: int) -> list[str]:
    """Token texts by id: bytes as byte-level BPE spells them, then words of four letters; the end of text at its own
    id."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ("".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=4))
    found = [*bytes_, *itertools.islice(words, vocab_size - 1 - len(bytes_))]
    found.insert(end_of_text_id, END_OF_TEXT)
    return found
