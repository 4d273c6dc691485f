"""Training windows: token ids and, at each place, whether the token is to be learnt."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from corpus import Chapter, as_text
from dialogue import Turns
from tokenizers import Tokenizer
from vocabulary import END_OF_TEXT_ID, chat_pieces

IGNORED = -100
CHAT_SHARE = 0.15
"""Share of windows that hold dialogues; the rest is the novels as they are."""

Document = tuple[np.ndarray, np.ndarray]
"""Token ids, and labels of the same length (an id, or IGNORED)."""


@dataclass(frozen=True)
class Documents:
    """The tokenized training documents."""

    chapters: list[Document]
    dialogues: list[Document]


def encode_chapter(tokenizer: Tokenizer, chapter: Chapter) -> Document:
    """Encodes a chapter as one document; end of text separates it from the next."""
    ids = np.array([*tokenizer.encode(as_text([chapter])).ids, END_OF_TEXT_ID])
    return ids, ids


def encode_dialogue(tokenizer: Tokenizer, turns: Turns) -> Document:
    """Encodes a dialogue as one document; pieces are encoded apart, which changes no token at their borders."""
    ids: list[int] = []
    labels: list[int] = []
    for text, is_learnt in chat_pieces(turns):
        piece = tokenizer.encode(text).ids
        ids.extend(piece)
        labels.extend(piece if is_learnt else [IGNORED] * len(piece))
    return np.array(ids), np.array(labels)


def windows(documents: list[Document], length: int, rng: np.random.Generator, *, is_cut: bool) -> Iterator[Document]:
    """Endless windows of `length + 1` tokens over shuffled documents.

    `is_cut`: windows may begin anywhere (novels). Otherwise each begins with a document, as a chat does
    when it is served, and its last document may be cut short.
    """
    while True:
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


def batches(
    documents: Documents, length: int, tokens_per_batch: int, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and labels [windows, length], novels and dialogues mixed."""
    novels = windows(documents.chapters, length, rng, is_cut=True)
    chats = windows(documents.dialogues, length, rng, is_cut=False)
    while True:
        num_windows = max(1, tokens_per_batch // length)
        chosen = [next(chats if rng.random() < CHAT_SHARE else novels) for _ in range(num_windows)]
        inputs = torch.from_numpy(np.stack([ids[:-1] for ids, _ in chosen]))
        yield inputs, torch.from_numpy(np.stack([labels[1:] for _, labels in chosen]))
