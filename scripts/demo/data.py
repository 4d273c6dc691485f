"""Training windows: token ids and, at each place, whether the token is to be learnt."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from corpus import Chapter, as_text
from dialogues.make import Talk, Turns
from tokenizers import Tokenizer
from vocabulary import END_OF_TEXT_ID, chat_pieces

IGNORED = -100
CHAT_SHARE = 0.65
"""Share of the tokens that are of dialogues; the rest is the novels as they are."""
CHAT_LENGTHS = (128, 128, 256)
"""Window lengths of dialogues, beside the stage's own: a first message stands at the beginning of a window."""
DIALOGUES_AT_ONCE = 1000
PART_TOKENS = 512

Document = tuple[np.ndarray, np.ndarray]
"""Token ids, and labels of the same length (an id, or IGNORED)."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""Inputs and labels, [windows, length]."""


def encode_chapter(tokenizer: Tokenizer, chapter: Chapter) -> Document:
    """Encodes a chapter as one document; end of text separates it from the next."""
    ids = np.array([*tokenizer.encode(as_text([chapter])).ids, END_OF_TEXT_ID])
    return ids, ids


def encode_dialogue(tokenizer: Tokenizer, system: str | None, turns: Turns) -> Document:
    """Encodes a dialogue as one document; pieces are encoded apart, which changes no token at their borders."""
    ids: list[int] = []
    labels: list[int] = []
    for text, is_learnt in chat_pieces(system, turns):
        piece = tokenizer.encode(text).ids
        ids.extend(piece)
        labels.extend(piece if is_learnt else [IGNORED] * len(piece))
    return np.array(ids), np.array(labels)


def windows(documents: list[Document], length: int, rng: np.random.Generator, *, is_cut: bool) -> Iterator[Document]:
    """Windows of `length + 1` tokens over shuffled documents.

    `is_cut`: windows may begin anywhere (novels). Otherwise each begins with a document, as a chat does
    when it is served, and its last document may be cut short.
    """
    order = rng.permutation(len(documents))
    ids = np.concatenate([documents[i][0] for i in order])
    labels = np.concatenate([documents[i][1] for i in order])
    starts = np.cumsum([0] + [len(documents[i][0]) for i in order])
    begin = int(rng.integers(length)) if is_cut else 0
    while begin + length < len(ids):
        yield ids[begin : begin + length + 1], labels[begin : begin + length + 1]
        begin += length
        if not is_cut:
            begin = int(starts[np.searchsorted(starts, begin)])


def novel_windows(chapters: list[Document], length: int, rng: np.random.Generator) -> Iterator[Document]:
    """Endless windows of the novels."""
    while True:
        yield from windows(chapters, length, rng, is_cut=True)


def chat_windows(tokenizer: Tokenizer, length: int, rng: np.random.Generator) -> Iterator[Document]:
    """Endless windows of dialogues, always new ones."""
    dialogues = Talk(int(rng.integers(2**31))).dialogues()
    while True:
        made = islice(dialogues, DIALOGUES_AT_ONCE)
        documents = [encode_dialogue(tokenizer, system, turns) for system, turns in made]
        yield from windows(documents, length, rng, is_cut=False)


def stack(chosen: list[Document]) -> Batch:
    """Windows as inputs and labels."""
    ids, labels = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*chosen, strict=True))
    return ids[:, :-1], labels[:, 1:]


def take(stream: Iterator[Document], length: int, tokens: float, rng: np.random.Generator) -> list[Batch]:
    """The next windows, of `tokens` tokens on average, in parts of about PART_TOKENS."""
    chosen = list(islice(stream, int(tokens / length + rng.random())))
    at_once = max(1, PART_TOKENS // length)
    return [stack(chosen[i : i + at_once]) for i in range(0, len(chosen), at_once)]


def batches(
    chapters: list[Document], tokenizer: Tokenizer, length: int, tokens_per_batch: int, rng: np.random.Generator
) -> Iterator[list[Batch]]:
    """Each step's batches: one of dialogues and one of the novels, each with its own length."""
    novels = novel_windows(chapters, length, rng)
    chats = {each: chat_windows(tokenizer, each, rng) for each in {*CHAT_LENGTHS, length}}
    while True:
        chat_length = int(rng.choice([*CHAT_LENGTHS, length]))
        chosen = take(chats[chat_length], chat_length, CHAT_SHARE * tokens_per_batch, rng)
        chosen += take(novels, length, (1 - CHAT_SHARE) * tokens_per_batch, rng)
        if chosen:
            yield chosen
