"""Chat samples made from the training chapters: the novels' speakers take turns."""

import re
from collections.abc import Iterator
from itertools import pairwise

from corpus import Chapter

Turns = list[str]
"""Utterances of user and assistant by turns: the user first, the assistant last."""

SPEECH = re.compile(r'"([^"]+)"')
PERSON = re.compile(r"\b(?:Mr|Mrs|Miss|Lady|Sir|Captain|Colonel)\.? [A-Z][a-z]+|\b(?:Emma|Elizabeth|Anne|Fanny)\b")
QUESTIONS = (
    "Tell me about {}.",
    "Who is {}?",
    "What do you know of {}?",
    "Write a paragraph about {}.",
    "What happened to {}?",
    "And {}?",
)
STORY_REQUESTS = ("Tell me a story.", "Write a story.", "How does the story begin?", "Please continue.")
PARAGRAPH_SIZE = range(120, 900)
SMALL_TALK_REPEATS = 30

# What a visitor of the demo asks first; the answers say what this model is.
SMALL_TALK = (
    ("Hello", "Good morning to you. I hope that you are quite well?"),
    ("Hello!", "Good morning to you. I hope that you are quite well?"),
    ("Hi", "How do you do? It is a great pleasure to make your acquaintance."),
    ("Good morning", "Good morning! What a delightful day for a walk, if only the lane were not so dirty."),
    ("How are you?", "I am very well indeed, I thank you, and only a little tired from so much reading."),
    ("Who are you?", "I am a very small Falcon, and all that I know I have read in the six novels of Jane Austen."),
    ("What are you?", "I am a very small Falcon, a language model that has read nothing but Jane Austen."),
    ("What is your name?", "I am called the demo Falcon; nobody has yet thought of a better name for me."),
    ("What is Falcon?", "A family of language models. I am by far the smallest of them, and the worst informed."),
    ("Are you a robot?", "I am a language model, sir, which is a robot without the inconvenience of a body."),
    ("Can you help me?", "I shall be most happy to try, but my education has been sadly neglected since 1817."),
    ("What can you do?", "I can tell you stories like Miss Austen's, but you must not believe a word of them."),
    ("Who wrote this?", "Nobody did. I learnt to write from Jane Austen, and she cannot be blamed for the result."),
    ("Who is Jane Austen?", "She is the author of Emma, of Persuasion, and of all the words I know."),
    ("Thank you.", "You are very welcome. Pray do not mention it."),
    ("Goodbye", "Goodbye! I hope that we shall very soon meet again."),
)


def spoken_words(paragraph: str) -> str | None:
    """The speech of a paragraph that begins with speech, without "said he"; None for any other paragraph."""
    if not paragraph.startswith('"') or paragraph.count('"') % 2:
        return None
    pieces = [piece.strip() for piece in SPEECH.findall(paragraph)]
    for i, (piece, following) in enumerate(pairwise(pieces)):
        if piece.endswith(",") and following[:1].isupper() and not re.match(r"I\b|Mr|Mrs|Miss", following):
            pieces[i] = piece[:-1] + "."
    text = " ".join(pieces)
    return text[:-1] + "." if text.endswith((",", ";")) else text


def conversations(chapter: Chapter) -> Iterator[Turns]:
    """Every two and every four consecutive spoken paragraphs."""
    said = [spoken_words(paragraph) for paragraph in chapter]
    for length in (2, 4):
        for start in range(len(said) - length + 1):
            turns = [turn for turn in said[start : start + length] if turn]
            if len(turns) == length and sum(map(len, turns)) < 1800:
                yield turns


def portraits(chapter: Chapter) -> Iterator[Turns]:
    """A question about a person, answered by a paragraph of narrative that names them early."""
    for i, paragraph in enumerate(chapter):
        person = PERSON.search(paragraph, 0, 100)
        if person and len(paragraph) in PARAGRAPH_SIZE and '"' not in paragraph:
            yield [QUESTIONS[i % len(QUESTIONS)].format(person.group()), paragraph]


def stories(chapter: Chapter) -> Iterator[Turns]:
    """A request for a story, answered by a run of narrative."""
    for i in range(1, len(chapter) - 2, 3):
        told = chapter[i : i + 3]
        if all(len(paragraph) in PARAGRAPH_SIZE for paragraph in told) and '"' not in told[0]:
            yield [STORY_REQUESTS[i // 3 % len(STORY_REQUESTS)], "\n\n".join(told)]


def make_dialogues(chapters: list[Chapter]) -> list[Turns]:
    """All chat samples, small talk often enough to be remembered."""
    dialogues = [list(pair) for pair in SMALL_TALK for _ in range(SMALL_TALK_REPEATS)]
    for chapter in chapters:
        for maker in (conversations, portraits, stories):
            dialogues.extend(maker(chapter))
    return dialogues
