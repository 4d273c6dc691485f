"""The load: a function of its seed."""

import statistics
from dataclasses import replace

import pytest
from benchmarks.load.workload import LETTERS, Workload, as_text
from benchmarks.scenarios import SCENARIOS

MIXED = Workload(200, (3, 9), (2, 5), rate=10.0, shared_prefix=7, turns=(1, 3), cancelled=0.5, vocab_size=100, seed=3)


def test_the_same_seed_makes_the_same_load() -> None:
    """Runs of two servers, or of two days, can be compared."""
    assert MIXED.sessions() == MIXED.sessions()
    assert MIXED.sessions() != replace(MIXED, seed=4).sessions()


def test_arrivals_are_a_poisson_process() -> None:
    """Gaps have the mean 1 / rate, and an exponential's deviation, which equals its mean."""
    arrivals = [session.arrival for session in replace(MIXED, num_sessions=5000).sessions()]
    gaps = [after - before for before, after in zip([0.0, *arrivals], arrivals, strict=False)]
    assert statistics.mean(gaps) == pytest.approx(0.1, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.1, rel=0.1)


def test_without_a_rate_all_come_at_once() -> None:
    """A closed loop takes them one by one."""
    assert {session.arrival for session in replace(MIXED, rate=None).sessions()} == {0.0}


def test_lengths_turns_and_cancellations_are_as_asked() -> None:
    """The first message has the shared prefix on top."""
    sessions = MIXED.sessions()
    assert len({session.turns[0].message[:7] for session in sessions}) == 1
    assert {len(session.turns) for session in sessions} == {1, 2, 3}
    turns = [turn for session in sessions for turn in session.turns]
    assert {turn.max_new_tokens for turn in turns} == {2, 3, 4, 5}
    assert {len(turn.message) for session in sessions for turn in session.turns[1:]} == set(range(3, 10))
    assert 0.4 < sum(turn.cancel_after is not None for turn in turns) / len(turns) < 0.6
    assert all(12 <= id < 100 for turn in turns for id in turn.message)


def test_an_id_is_a_letter_where_prompts_are_text() -> None:
    """As many characters as tokens."""
    assert as_text((0, 1, 52)) == LETTERS[0] + LETTERS[1] + LETTERS[0]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_rounds_have_the_same_lengths_and_other_tokens(scenario) -> None:  # type: ignore[no-untyped-def]
    """No server can answer a round from its cache of the last one."""
    first, second = scenario.sessions(0), scenario.sessions(1)
    lengths = [(len(s.turns[0].message), s.turns[0].max_new_tokens) for s in first]
    assert lengths == [(len(s.turns[0].message), s.turns[0].max_new_tokens) for s in second] == scenario.lengths()
    beginnings = [session.turns[0].message[:16] for session in (*first, *second)]
    shared = scenario.workload.shared_prefix
    assert len(set(beginnings)) == (2 if shared else len(beginnings))
    assert len({session.turns[0].message[shared:] for session in first}) == len(first)
