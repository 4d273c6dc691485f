"""Patterns of text with alternatives, and the small ways in which people type the same words differently."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ALTERNATIVES = re.compile(r"\{([^{}]*)\}")
SLOT = re.compile(r"<([A-Za-z_]+)>")

CONTRACTIONS = {
    "What is": "What's",
    "what is": "what's",
    "Who is": "Who's",
    "who is": "who's",
    "Where is": "Where's",
    "How is": "How's",
    "how is": "how's",
    "where is": "where's",
    "You are": "You're",
    "you are": "you're",
    "that is": "that's",
    "It is": "It's",
    "I am": "I'm",
    "do not": "don't",
    "does not": "doesn't",
    "can not": "can't",
    "I would": "I'd",
    "That is": "That's",
    "Let us": "Let's",
    "are not": "aren't",
    "is not": "isn't",
    "favourite": "favorite",
}
LEADS = ("Hey, ", "Hi, ", "Hello, ", "Hi! ", "Hello! ", "So, ", "Ok, ", "Okay, ", "Well, ", "Please, ", "Um, ", "Now ")
QUESTION_LEADS = ("can you tell me ", "tell me, ", "do you know ", "I wonder, ", "quick question: ", "question: ")
TAILS = (" please", ", please", " thanks", " then", " Thanks!")


@dataclass(frozen=True)
class Topic:
    """One thing that users say in many ways, and what may be answered: patterns of `expand` both.

    `weight`: how often the topic is drawn beside others. `is_plain`: the message takes no lead-in ("Hey, ...").
    `slots`: lists by the name of the slot that both the message and the answer may use.
    `tell`: makes the answer instead of `says`.
    """

    asks: Sequence[str]
    says: Sequence[str] = ()
    weight: float = 1.0
    is_plain: bool = False
    slots: Mapping[str, Sequence[str]] | None = None
    tell: Callable[[random.Random, Mapping[str, str]], str] | None = None


def expand(pattern: str, rng: random.Random) -> str:
    """Text of a pattern: `{a|b|}` is one of its alternatives; they may stand inside each other."""
    while ALTERNATIVES.search(pattern):
        pattern = ALTERNATIVES.sub(lambda match: rng.choice(match.group(1).split("|")), pattern)
    return re.sub(r" +([?.!,])", r"\1", re.sub(r"  +", " ", pattern)).strip()


def capitalize(text: str) -> str:
    """Text whose first letter is a capital."""
    return text[:1].upper() + text[1:]


def fill(pattern: str, values: Mapping[str, str]) -> str:
    """Text of a pattern whose slots `<name>` are replaced by their values."""
    return SLOT.sub(lambda match: values[match.group(1)], pattern)


def with_typo(text: str, rng: random.Random) -> str:
    """Text in which two letters changed places, one is missing or one is doubled."""
    at = rng.randrange(1, max(2, len(text) - 2))
    swapped = text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]
    return rng.choice((swapped, text[:at] + text[at + 1 :], text[:at] + text[at : at + 1] + text[at:]))


def with_lead(text: str, rng: random.Random) -> str:
    """Text behind a greeting or a hesitation."""
    if text.endswith("?") and rng.random() < 0.3:
        return capitalize(rng.choice(QUESTION_LEADS) + text[0].lower() + text[1:])
    return rng.choice(LEADS) + (text if text.startswith("I ") else text[0].lower() + text[1:])


def as_typed(text: str, rng: random.Random, *, is_plain: bool = False) -> str:
    """Text as somebody may type it: shortened, without capitals or the last point, with a slip now and then."""
    text = capitalize(text)
    if not is_plain and rng.random() < 0.15:
        text = with_lead(text, rng)
    for full, short in CONTRACTIONS.items():
        if rng.random() < 0.4:
            text = text.replace(full, short)
    if not is_plain and rng.random() < 0.05:
        text = text.rstrip(".?!") + rng.choice(TAILS) + ("?" if text.endswith("?") else "")
    if rng.random() < 0.3:
        text = text.rstrip(".!?")
    elif rng.random() < 0.06:
        text = text.rstrip(".?!") + rng.choice(("!", "!!", "??", "...", " ?"))
    if rng.random() < 0.35:
        text = text.lower()
    if rng.random() < 0.04 and len(text) > 8:
        text = with_typo(text, rng)
    return text.upper() if rng.random() < 0.01 else text


def exchange(topic: Topic, rng: random.Random) -> tuple[str, str]:
    """A user's message and the answer to it."""
    values = {name: rng.choice(words) for name, words in (topic.slots or {}).items()}
    message = as_typed(fill(expand(rng.choice(topic.asks), rng), values), rng, is_plain=topic.is_plain)
    told = topic.tell(rng, values) if topic.tell else expand(rng.choice(topic.says), rng)
    return message, fill(told, values)
