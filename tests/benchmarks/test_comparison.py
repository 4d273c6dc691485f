"""A comparison's samples and tables, and servers that fail."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
from benchmarks.compare import Comparison, measure, renewed
from benchmarks.comparison import median_bounds, ratios, spread, table
from benchmarks.hardware import Device
from benchmarks.load.client import Answer
from benchmarks.load.workload import Session
from benchmarks.peers import all_peers
from benchmarks.peers.process import InProcessPeer
from benchmarks.scenarios import SCENARIOS
from benchmarks.verdicts import verdicts


class FakePeer:
    """Answers every load in a second; may lose a token, or fail to start."""

    missing = None

    def __init__(self, name: str, seconds: float = 1.0, lost: int = 0, starts: bool = True) -> None:
        self.name, self.seconds, self.lost, self.starts = name, seconds, lost, starts
        self.is_running = False
        self.loads: list[list[Session]] = []

    def start(self, logs: Path) -> None:
        if not self.starts:
            raise RuntimeError("no such library")
        self.is_running = True

    def run(self, sessions: list[Session]) -> list[Answer]:
        assert self.is_running
        self.loads.append(sessions)
        turns = [session.turns[0] for session in sessions]
        times = [
            [self.seconds * (i + 1) / t.max_new_tokens for i in range(t.max_new_tokens - self.lost)] for t in turns
        ]
        return [Answer(len(t.message), 0.0, each, self.seconds) for t, each in zip(turns, times, strict=True)]

    def stop(self) -> None:
        self.is_running = False


class FakePeak:
    """A machine of round numbers. Its memory has the speeds given, then 10 TB/s."""

    def __init__(self, *speeds: float) -> None:
        self.speeds = list(speeds)

    def measure(self, weights: str) -> Device:
        return Device("fake", self.speeds.pop(0) if self.speeds else 1e13, 1e15, 0.0)


def compare(*peers: FakePeer, peak: FakePeak | None = None) -> dict[str, Any]:
    kept: list[dict[str, Any]] = []
    comparison = Comparison([*peers], peak or FakePeak())  # type: ignore[arg-type, list-item]
    measure(comparison, SCENARIOS[:2], rounds=2, keep=kept.append)
    assert not any(peer.is_running for peer in peers), "a server was left running"
    return kept[-1]


def test_turns_in_which_memory_changed_its_speed_are_taken_again() -> None:
    """All turns are repeated, so that all compared servers had the same memory speed; the fourth attempt counts in any
    case."""
    peers = FakePeer("Peregrine bf16"), FakePeer("vLLM bf16")
    wild = [3e12, 3e12, 6e12, 6e12]
    for speeds, expected in ((wild, 1e13), (4 * wild, 3e12)):
        kept = compare(*peers, peak=FakePeak(*speeds))["samples"]
        assert [each["peer"] for each in kept[:2]] == [peer.name for peer in peers]
        assert kept[0]["bytes_per_second"] == expected
        assert len(kept) == 8


def test_turns_that_are_taken_again_have_other_prompts() -> None:
    """A prefix cache would otherwise hold the prompts of the attempt before."""
    peer = FakePeer("Peregrine bf16")
    compare(peer, peak=FakePeak(3e12, 6e12))
    prompts = [tuple(session.turns[0].message) for sessions in peer.loads for session in sessions]
    assert len(prompts) == len(set(prompts))


def test_long_turns_are_not_taken_again() -> None:
    """Repeating would take hours, and a long load meets memory of every speed anyway."""
    slow = FakePeer("Peregrine bf16", seconds=61.0)
    kept = compare(slow, peak=FakePeak(5e12, 5e12, 1e13))["samples"]
    assert kept[0]["bytes_per_second"] == 5e12


def test_every_server_has_every_scenario_in_every_round() -> None:
    """Two servers, two scenarios, two rounds; a ratio is of the same round."""
    data = compare(FakePeer("Peregrine bf16", 1.0), FakePeer("other bf16", 2.0))
    assert len(data["samples"]) == 8
    (line,) = [line for line in table(data).splitlines() if line.startswith("| other") and "64.0" in line]
    assert "2.00 [2.00-2.00]" in line


def test_a_server_that_is_far_behind_has_a_scenario_once() -> None:
    """A peer three times slower than the fastest is not measured again; ours always is."""
    data = compare(FakePeer("Peregrine bf16", 4.0), FakePeer("slow bf16", 3.0), FakePeer("other bf16", 1.0))
    rounds = {name: sum(s["peer"] == name for s in data["samples"]) for name in ("Peregrine bf16", "slow bf16")}
    assert rounds == {"Peregrine bf16": 4, "slow bf16": 2}


def test_scenarios_of_an_earlier_run_are_kept_with_their_commit() -> None:
    """Scenarios of this run replace earlier ones of the same name."""

    def run(commit: str, *scenarios: str) -> dict[str, Any]:
        return {"machine": {"commit": commit}, "samples": [{"scenario": name, "commit": commit} for name in scenarios]}

    first = run("a", "one stream", "8 streams", "32 mixed")
    second = renewed(first, run("b", "8 streams"))
    third = renewed(second, run("c", "one stream"))
    assert second["earlier"] == {"one stream": "a", "32 mixed": "a"}
    assert third["earlier"] == {"8 streams": "b", "32 mixed": "a"}
    assert [each["commit"] for each in third["samples"]] == ["c", "b", "a"]
    assert "earlier" not in renewed(third, first)


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (FakePeer("other", starts=False), "no such library"),
        (FakePeer("other", lost=1), "3 tokens came, 4 were asked for"),
    ],
)
def test_a_server_that_fails_is_named_and_the_others_go_on(peer: FakePeer, reason: str) -> None:
    """A server that ends early would otherwise look fast."""
    data = compare(FakePeer("Peregrine bf16"), peer)
    assert {sample["peer"] for sample in data["samples"]} == {"Peregrine bf16"}
    assert data["skipped"] == {"other": reason}
    assert f"- other: not measured ({reason})" in table(data)


def test_ratios_are_of_rounds_that_both_have() -> None:
    """Ratios use only rounds that both servers took part in."""
    ours = [{"round": 0, "tokens_per_second": 10.0}, {"round": 1, "tokens_per_second": 30.0}]
    assert ratios(ours, [{"round": 1, "tokens_per_second": 15.0}]) == [2.0]
    assert spread([1.0, 3.0, 2.0], 1) == "2.0 [1.0-3.0]"


def test_what_is_not_installed_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its own name, without starting anything."""
    monkeypatch.setattr("benchmarks.peers.PEERS_FOLDER", tmp_path)
    monkeypatch.delenv("LLAMA_SERVER", raising=False)
    missing = {peer.name: peer.missing for peer in all_peers(tmp_path, 2)}
    assert "scripts/peers.sh vllm" in str(missing["vLLM bf16"])
    assert "scripts/peers.sh openvino" in str(missing["OpenVINO int8"])
    assert "scripts/peers.sh llama.cpp" in str(missing["llama.cpp q8_0"])
    assert missing["Peregrine bf16"] is None


def test_a_library_in_a_child_process_answers_loads_until_its_input_ends(tmp_path: Path) -> None:
    """Times count from the arrival of the load; other output of the library is ignored."""
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import sys, json\n"
        "print('loading ...')\n"
        "print('> ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    load = json.loads(line)\n"
        "    print('> ' + json.dumps([[0.5] * r['max_new_tokens'] for r in load]), flush=True)\n"
    )
    peer = InProcessPeer("library", None, driver, ())
    peer.start(tmp_path)
    sessions = SCENARIOS[0].sessions(0)
    (answer,) = peer.run(sessions)
    peer.stop()
    assert len(answer.token_times) == sessions[0].turns[0].max_new_tokens
    assert answer.token_times[0] - answer.sent == pytest.approx(0.5)


def test_a_library_that_dies_is_told_with_its_log(tmp_path: Path) -> None:
    """The error names the log with the library's output."""
    (tmp_path / "driver.py").write_text("raise SystemExit('no such module')")
    peer = InProcessPeer("a library", None, tmp_path / "driver.py", ())
    with pytest.raises(RuntimeError, match=r"a-library\.log"):
        peer.start(tmp_path)
    assert "no such module" in (tmp_path / "a-library.log").read_text()


def test_a_promise_is_held_against_the_peer_that_comes_nearest() -> None:
    """Twice as fast as one and 1.25 times as fast as the other: 1.25 counts."""
    data = compare(FakePeer("Peregrine bf16", 1.0), FakePeer("slow bf16", 2.0), FakePeer("near bf16", 1.25))
    lines = verdicts({"bf16": data}).splitlines()
    assert "| one stream: tokens/s over near bf16 | 1.25 [1.25-1.25] | >= 1.0 |" in lines


def test_int8_is_held_against_our_own_bf16_and_the_best_int8_peer() -> None:
    """Two bars, from one run."""
    data = compare(FakePeer("Peregrine bf16", 2.0), FakePeer("Peregrine int8", 1.0), FakePeer("other q8_0", 1.5))
    text = verdicts({"int8": data})
    assert "| int8, one stream: tokens/s over our bf16 | 2.00 [2.00-2.00] | >= 1.75 |" in text
    assert "| int8, one stream: tokens/s over other q8_0 | 1.50 [1.50-1.50] | >= 1.0 |" in text


def test_int4_is_held_against_the_four_bits_of_others() -> None:
    """Not against our own rows, which stand beside it."""
    ours = [FakePeer("Peregrine bf16", 3.0), FakePeer("Peregrine int8", 2.0), FakePeer("Peregrine int4", 1.0)]
    data = compare(*ours, FakePeer("llama.cpp q4_0", 1.5))
    assert "| int4, one stream: tokens/s over llama.cpp q4_0 | 1.50 [1.50-1.50] | >= 1.0 |" in verdicts({"int4": data})
    assert "| llama.cpp q4_0 |" in table(data)


def test_the_median_lies_within_its_bounds_95_times_of_a_hundred() -> None:
    """For a thousand draws of fifty samples with median 1, the bounds contain 1 in about 95 % of the draws."""
    random = Random(0)
    held = 0
    for _ in range(1000):
        low, high = median_bounds([random.lognormvariate(0.0, 0.3) for _ in range(50)])
        held += low <= 1.0 <= high
    assert 930 <= held <= 985
