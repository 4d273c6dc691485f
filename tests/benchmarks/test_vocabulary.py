"""The tokenizer of the benchmark's model."""

from pathlib import Path

from benchmarks.vocabulary import make_tokenizer

from peregrine_router.text.tokenizer import Tokenizer


def test_every_id_has_a_text_and_every_character_is_one_token(tmp_path: Path) -> None:
    """No server holds back a token, and prompts are as long as asked for."""
    make_tokenizer(tmp_path, 65024, 11)
    tokenizer = Tokenizer.load(tmp_path)
    assert len(tokenizer.encode("a prompt of text")) == 16
    assert tokenizer.decode(tokenizer.encode("a prompt of text")) == "a prompt of text"
    assert all(tokenizer.describe(id).text for id in (0, 10, 300, 40_000, 65_023))
    assert tokenizer.eos_token_ids == {11}
    assert tokenizer.decode([11]) == ""
