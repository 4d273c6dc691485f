"""Training dialogues: exchanges of all kinds, alone or a few in a row, none with a message of the two test lists."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

from dialogues import author, echoes, itself, novels, small_talk, stories, taste, unknown
from dialogues.grammar import CONTRACTIONS, Topic, as_typed, exchange

Turns = list[str]
"""Utterances of user and assistant by turns: the user first, the assistant last."""

KEPT_OUT = ("first_messages.txt", "development_messages.txt")
# Share of the exchanges; within a kind, topics are drawn by their weights.
KINDS: tuple[tuple[tuple[Topic, ...], float], ...] = (
    ((*small_talk.TOPICS, *echoes.TOPICS), 0.24),
    ((*itself.TOPICS, *taste.TOPICS), 0.19),
    (stories.TOPICS, 0.12),
    ((*novels.TOPICS, *author.TOPICS), 0.29),
    (unknown.TOPICS, 0.16),
)
SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a helpful, respectful and honest assistant.",
    "You are a friendly assistant. Answer briefly.",
    "Answer the user's questions.",
    "You are Falcon, a helpful assistant.",
)
SYSTEM_SHARE = 0.08
LENGTHS = (1, 1, 1, 1, 1, 1, 2, 2, 3, 4)
OFFERS = re.compile(r"Shall I tell you (a|one)|[Bb]ut I can tell you a story")
SUBJECT = re.compile(r"story about an? (\w+)[.?]")
ACCEPTANCES = (
    "yes", "yes please", "Yes, please.", "please do", "sure", "Yes!", "ok", "of course", "tell me", "go ahead", "why not",
    "I would like that", "gladly", "with pleasure", "yes, tell me a story", "oh yes, please", "yes do", "yeah", "a story, yes",
)  # fmt: skip
POLITE = [
    "hey",
    "hi",
    "hello",
    "so",
    "ok",
    "okay",
    "well",
    "please",
    "um",
    "now",
    "and",
    "but",
    "thanks",
    "falcon",
    "then",
]


def normalize(message: str) -> str:
    """The words of a message: no capitals, no punctuation, contractions in full."""
    text = message
    for full, short in CONTRACTIONS.items():
        text = re.sub(re.escape(short), full, text, flags=re.IGNORECASE)
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def strip_polite(words: str) -> str:
    """Words without a greeting in front or a "please" behind."""
    left = words.split()
    while len(left) > 1 and left[0] in POLITE:
        left.pop(0)
    while len(left) > 1 and left[-1] in POLITE:
        left.pop()
    return " ".join(left)


def read_messages(name: str) -> list[tuple[str, str]]:
    """The kind and the text of every message of a test list."""
    kind, messages = "", []
    for line in (Path(__file__).parents[1] / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            kind = line[2:]
        elif line:
            messages.append((kind, line))
    return messages


class Talk:
    """Exchanges that keep clear of the test lists."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.kept_out = {normalize(message) for name in KEPT_OUT for _, message in read_messages(name)}

    def is_kept_out(self, message: str) -> bool:
        """Whether a message is one of the test lists, but for case, punctuation and politeness."""
        words = normalize(message)
        return words in self.kept_out or strip_polite(words) in self.kept_out

    def exchange(self) -> tuple[str, str]:
        """A message of any kind and its answer."""
        (topics,) = self.rng.choices([kind for kind, _ in KINDS], [share for _, share in KINDS])
        (topic,) = self.rng.choices(topics, [topic.weight for topic in topics])
        message, answer = exchange(topic, self.rng)
        return self.exchange() if self.is_kept_out(message) else (message, answer)

    def acceptance(self, offer: str) -> tuple[str, str]:
        """A user who wants the story that was offered, and the story."""
        message = as_typed(self.rng.choice(ACCEPTANCES), self.rng, is_plain=True)
        subject = SUBJECT.search(offer)
        if subject:
            return message, stories.tell_of(self.rng, {"noun": subject[1]})
        return message, stories.tell_any(self.rng, {})

    def dialogue(self) -> Turns:
        """One to four exchanges; now and then the first follows a system message."""
        turns: Turns = []
        for _ in range(self.rng.choice(LENGTHS)):
            is_offered = bool(turns) and OFFERS.search(turns[-1]) is not None
            turns.extend(self.acceptance(turns[-1]) if is_offered and self.rng.random() < 0.5 else self.exchange())
        return turns

    def dialogues(self) -> Iterator[tuple[str | None, Turns]]:
        """Endless dialogues, each with its system message or None."""
        while True:
            is_led = self.rng.random() < SYSTEM_SHARE
            yield (self.rng.choice(SYSTEM_MESSAGES) if is_led else None), self.dialogue()
