"""The loads on which servers are compared. Prompts are new in every round, and differ but for a shared prefix."""

from dataclasses import dataclass, replace

from benchmarks.load.workload import Session, Workload

VOCAB_SIZE = 65024


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load of simultaneous requests."""

    name: str
    workload: Workload
    counts_prompt: bool = False
    """Whether tokens a second count the prompt's tokens: the scenario measures prefill."""

    def sessions(self, round_: int) -> list[Session]:
        """The same lengths in every round and for every server, with other tokens in each round.

        Otherwise a prefix cache would find the last round's.
        """
        seed = self.workload.seed + 1000 * (round_ + 1)
        tokens = replace(self.workload, seed=seed, input_tokens=(1024, 1024)).sessions()
        return [_retold(a, b) for a, b in zip(self.workload.sessions(), tokens, strict=True)]

    def lengths(self) -> list[tuple[int, int]]:
        """(prompt, generated) tokens of each request."""
        return [(len(s.turns[0].message), s.turns[0].max_new_tokens) for s in self.workload.sessions()]


def _retold(lengths: Session, tokens: Session) -> Session:
    turn = lengths.turns[0]
    return replace(lengths, turns=(replace(turn, message=tokens.turns[0].message[: len(turn.message)]),))


def _load(sessions: int, inputs: tuple[int, int], outputs: tuple[int, int], prefix: int = 0) -> Workload:
    return Workload(sessions, inputs, outputs, shared_prefix=prefix, vocab_size=VOCAB_SIZE, seed=sessions)


SCENARIOS = (
    Scenario("one stream", _load(1, (128, 128), (128, 128))),
    Scenario("8 streams", _load(8, (128, 128), (128, 128))),
    Scenario("prefill 1024", _load(1, (1024, 1024), (1, 1)), counts_prompt=True),
    Scenario("32 mixed", _load(32, (32, 512), (16, 128))),
    Scenario("shared prefix", _load(16, (16, 16), (32, 32), prefix=512)),
)
"""128 tokens in, 128 out; 32-512 in, 16-128 out; 16 requests of one prefix of 512 tokens, 16 of their own, 32 out."""
