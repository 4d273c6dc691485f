"""Requests and their arrival times: sessions of one turn or several, a function of the seed alone."""

import random
from dataclasses import dataclass, replace

FIRST_ID = 12
"""First token id to use: Falcon's ids below are special tokens."""
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a session. Its prompt is all that was said before, and this message."""

    message: tuple[int, ...]
    """Token ids."""
    max_new_tokens: int
    cancel_after: int | None = None
    """Number of tokens after which the client leaves."""


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation: each turn is sent when the one before it has been answered."""

    arrival: float
    """Seconds after the load begins; used in an open loop only."""
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """Sizes and rates of a load. Ranges are inclusive and drawn from uniformly."""

    num_sessions: int
    input_tokens: tuple[int, int] = (32, 512)
    """Range of a message's tokens; the shared prefix is added."""
    output_tokens: tuple[int, int] = (16, 128)
    rate: float | None = None
    """Sessions a second, in a Poisson process; None: all at once."""
    shared_prefix: int = 0
    """Length of the prefix that every session begins with."""
    turns: tuple[int, int] = (1, 1)
    cancelled: float = 0.0
    """Share of requests whose client leaves half-way."""
    vocab_size: int = 256
    seed: int = 0

    def sessions(self) -> list[Session]:
        """The sessions, in order of arrival; the same for the same fields."""
        rng = random.Random(self.seed)
        prefix = self._ids(rng, self.shared_prefix)
        clock, sessions = 0.0, []
        for _ in range(self.num_sessions):
            clock += rng.expovariate(self.rate) if self.rate else 0.0
            first, *others = [self._turn(rng) for _ in range(rng.randint(*self.turns))]
            sessions.append(Session(clock, (replace(first, message=prefix + first.message), *others)))
        return sessions

    def _turn(self, rng: random.Random) -> Turn:
        message, length = self._ids(rng, rng.randint(*self.input_tokens)), rng.randint(*self.output_tokens)
        leaves = rng.random() < self.cancelled
        return Turn(message, length, max(1, length // 2) if leaves else None)

    def _ids(self, rng: random.Random, count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(FIRST_ID, self.vocab_size) for _ in range(count))


def as_text(ids: tuple[int, ...]) -> str:
    """A letter for each id, for routes that take text: one token each if the tokenizer has no merges, fewer with."""
    return "".join(LETTERS[id % len(LETTERS)] for id in ids)
