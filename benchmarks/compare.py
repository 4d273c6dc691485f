"""`make compare`: every installed server on the same weights and loads, in one run, taking turns.

The servers of a group are started once and idle while others are measured. In every round all of them get a scenario,
one after the other, and the machine's bandwidth and GEMM peak are measured beside it. What counts are ratios within a
round. A server that takes more than FAR_BEHIND times as long as the fastest on the same weights has that scenario once,
not in every round. A short scenario in whose turns memory changed its speed is begun again. To be run on a machine with
nothing else to do: some minutes a round.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.checkpoint import CONFIG, make_checkpoint
from benchmarks.comparison import OURS, table, weights_of
from benchmarks.hardware import FALCON_1B, Device, load_seconds
from benchmarks.load.client import Answer
from benchmarks.load.report import Slo, summarize
from benchmarks.load.workload import Session
from benchmarks.machine import RESULTS, ROOT, instruction_set, machine, write_json
from benchmarks.peak import Peak
from benchmarks.peers import GROUPS, Peer, all_peers
from benchmarks.scenarios import SCENARIOS, VOCAB_SIZE, Scenario
from benchmarks.vocabulary import make_tokenizer

BYTES_PER_PARAMETER = {"bf16": 2.0, "int8": 1.0, "int4": 0.59}
"""int4: four bits and a scale of 16 for each group of 64, but a head of int8, an eighth of the parameters."""
SLO = Slo(first_token=5.0, per_token=0.25)
ORDER = [scenario.name for scenario in SCENARIOS]
WARM_UP_SESSIONS, WARM_UP_TOKENS = 4, 4
FAR_BEHIND = 2.0
"""A server this many times slower than the fastest runs a scenario once: llama.cpp takes six minutes where others take
one, and more rounds would take hours and change nothing."""
STEADY, ATTEMPTS, SHORT_SECONDS = 1.15, 4, 60.0
"""Turns that take up to SHORT_SECONDS in all are repeated, at most ATTEMPTS times, if bandwidth differed between them
by more than the factor STEADY, whichever server gained by it; the last attempt counts. Virtual cores that share a
memory link for some seconds read 33 GB/s and then 58."""
ATTEMPT_SEEDS = 1000
"""Seeds reserved for each attempt; more than there are rounds."""


@dataclass
class Comparison:
    """The servers that run, and what was measured so far."""

    peers: list[Peer]
    peak: Peak
    skipped: dict[str, str] = field(default_factory=dict)
    """Server name -> why it is not, or no longer, in the comparison."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """One for each round, scenario and server."""

    def start(self, logs: Path) -> None:
        """Starts the servers; skips those that cannot start."""
        for peer in tqdm(list(self.peers), desc="starting", leave=False):
            try:
                peer.start(logs)
            except (RuntimeError, OSError) as error:
                self._drop(peer, str(error))

    def warm_up(self, scenarios: Sequence[Scenario]) -> None:
        """Runs a few sessions of each scenario with a few tokens an answer, to fill caches and finish one-time work."""
        for scenario in scenarios:
            for peer in list(self.peers):
                self._run(peer, [_shortened(each) for each in scenario.sessions(-1)[:WARM_UP_SESSIONS]])

    def round(self, number: int, scenarios: Sequence[Scenario]) -> None:
        """Runs every scenario on every server; each round begins with another server."""
        for scenario in tqdm(scenarios, desc=f"round {number + 1}", leave=False):
            for attempt in range(ATTEMPTS):
                # With prompts of their own: servers remember what they have seen.
                sessions = scenario.sessions(number + attempt * ATTEMPT_SEEDS)
                turns = self._turns(number, scenario, sessions, is_last=attempt == ATTEMPTS - 1)
                if is_steady(turns):
                    break
            self.samples += (turn.sample for turn in turns)

    def _turns(self, number: int, scenario: Scenario, sessions: list[Session], *, is_last: bool) -> list["Turn"]:
        turns: list[Turn] = []
        at = number % len(self.peers) if self.peers else 0
        for peer in self.peers[at:] + self.peers[:at]:
            if is_far_behind(peer.name, scenario.name, self.samples):
                continue
            if not is_last and not is_steady(turns):
                break
            before = self.peak.measure(weights_of(peer.name))
            answers = self._run(peer, sessions)
            if answers is not None:
                after = self.peak.measure(weights_of(peer.name))
                turns.append(Turn(sample(number, scenario, peer, answers, faster(before, after)), before, after))
        return turns

    def data(self) -> dict[str, Any]:
        """The data to save: machine, samples, skipped servers."""
        return {"machine": machine(), "skipped": self.skipped, "samples": self.samples}

    def stop(self) -> None:
        for peer in self.peers:
            peer.stop()

    def _run(self, peer: Peer, sessions: list[Session]) -> list[Answer] | None:
        try:
            answers = peer.run(sessions)
        except (RuntimeError, OSError, ValueError) as error:
            self._drop(peer, str(error))
            return None
        wrong = [
            a.error or f"{len(a.token_times)} tokens came, {s.turns[0].max_new_tokens} were asked for"
            for a, s in zip(_in_order(answers), _in_order_of_length(sessions), strict=True)
            if a.error or len(a.token_times) != s.turns[0].max_new_tokens
        ]
        if wrong:
            self._drop(peer, wrong[0])
            return None
        return answers

    def _drop(self, peer: Peer, reason: str) -> None:
        peer.stop()
        self.peers.remove(peer)
        self.skipped[peer.name] = reason
        tqdm.write(f"{peer.name} is out: {reason}", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Turn:
    """One run, and the machine before and after it."""

    sample: dict[str, Any]
    before: Device | None
    after: Device | None


def is_steady(turns: Sequence[Turn]) -> bool:
    """Whether memory kept its speed through all turns, or the turns take too long to repeat."""
    devices = [device for turn in turns for device in (turn.before, turn.after) if device is not None]
    speeds = [device.bytes_per_second for device in devices]
    is_long = sum(turn.sample["seconds"] for turn in turns) > SHORT_SECONDS
    return is_long or not speeds or max(speeds) <= STEADY * min(speeds)


def sample(number: int, scenario: Scenario, peer: Peer, answers: list[Answer], device: Device | None) -> dict[str, Any]:
    """One sample of a run, as saved; `device` is this machine's limits at that time."""
    summary = summarize(answers, SLO)
    model = replace(FALCON_1B, bytes_per_parameter=BYTES_PER_PARAMETER[weights_of(peer.name)])
    bound = device and load_seconds(device, model, scenario.lengths(), scenario.workload.shared_prefix)
    tokens = summary["prompt_tokens"] if scenario.counts_prompt else summary["generated_tokens"]
    return {
        "round": number,
        "scenario": scenario.name,
        "peer": peer.name,
        "tokens_per_second": tokens / summary["seconds"],
        "of_hardware": bound and bound / summary["seconds"],
        "bytes_per_second": device and device.bytes_per_second,
        "flops_per_second": device and device.flops_per_second,
        **{name: summary[name] for name in ("seconds", "first_token", "inter_token", "goodput")},
    }


def is_far_behind(peer: str, scenario: str, samples: Sequence[dict[str, Any]]) -> bool:
    """Whether the peer's time so far exceeds another's by more than any round's noise."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for each in samples:
        if each["scenario"] == scenario and weights_of(each["peer"]) == weights_of(peer):
            seconds[each["peer"]].append(each["seconds"])
    if peer not in seconds or peer.startswith(OURS):
        return False
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return medians[peer] > FAR_BEHIND * min(medians.values())


def faster(before: Device | None, after: Device | None) -> Device | None:
    """The higher of two measurements of each limit: bandwidth varies within seconds, and always falls short of the
    limit."""
    if before is None or after is None:
        return None
    return replace(
        before,
        bytes_per_second=max(before.bytes_per_second, after.bytes_per_second),
        flops_per_second=max(before.flops_per_second, after.flops_per_second),
    )


def _in_order(answers: list[Answer]) -> list[Answer]:
    return sorted(answers, key=lambda answer: (answer.prompt_tokens, len(answer.token_times)))


def _in_order_of_length(sessions: list[Session]) -> list[Session]:
    return sorted(sessions, key=lambda s: (len(s.turns[0].message), s.turns[0].max_new_tokens))


def _shortened(session: Session) -> Session:
    (turn,) = session.turns
    return replace(session, turns=(replace(turn, max_new_tokens=min(WARM_UP_TOKENS, turn.max_new_tokens)),))


def main(argv: list[str] | None = None) -> None:
    """Measures, prints, and keeps the data."""
    options = parse(argv)
    # A time limit or a closed terminal ends this process by a signal, which would leave servers behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    make_checkpoint(options.path)
    make_tokenizer(options.path, VOCAB_SIZE, int(str(CONFIG["eos_token_id"])))
    scenarios = [each for each in SCENARIOS if each.name in options.scenarios]
    for group in options.groups:
        comparison = prepare(options.path, [n for n in GROUPS[group] if not options.peers or n in options.peers])
        measure(comparison, scenarios, options.rounds, partial(save, group) if options.save else lambda _: None)
        print(f"{group}\n\n{table(comparison.data())}")


def prepare(model: Path, names: Sequence[str]) -> Comparison:
    """A comparison of the named servers, as far as they are installed."""
    threads = len(os.sched_getaffinity(0))
    chosen = [peer for peer in all_peers(model, threads) if peer.name in names]
    missing = {peer.name: peer.missing for peer in chosen if peer.missing}
    return Comparison([peer for peer in chosen if not peer.missing], Peak(threads), missing)


def measure(
    comparison: Comparison, scenarios: Sequence[Scenario], rounds: int, keep: Callable[[dict[str, Any]], None]
) -> None:
    """Passes all data to `keep` after each round. Stops every server, also after an error."""
    logs = Path(tempfile.mkdtemp(prefix="peregrine-compare-"))
    tqdm.write(f"the servers' logs: {logs}", file=sys.stderr)
    try:
        comparison.start(logs)
        comparison.warm_up(scenarios)
        for number in range(rounds):
            comparison.round(number, scenarios)
            keep(comparison.data())
    finally:
        comparison.stop()


def save(group: str, data: dict[str, Any]) -> None:
    """Saves the data beside that of other groups, and of scenarios that this run does not have."""
    file = RESULTS / f"compare-{instruction_set()}.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    write_json(file, {**kept, group: renewed(kept.get(group, {}), data)})


def renewed(kept: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """`data` and the other scenarios of `kept`, whose commits are then in "earlier", by scenario."""
    names = {sample["scenario"] for sample in data["samples"]}
    others = [sample for sample in kept.get("samples", []) if sample["scenario"] not in names]
    if not others:
        return data
    commit, before = kept["machine"]["commit"], kept.get("earlier", {})
    earlier = {sample["scenario"]: before.get(sample["scenario"], commit) for sample in others}
    samples = sorted([*data["samples"], *others], key=lambda sample: ORDER.index(sample["scenario"]))
    return {**data, "earlier": earlier, "samples": samples}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scenarios", nargs="+", choices=ORDER, default=ORDER, metavar="NAME", help=", ".join(ORDER))
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS), help="of servers that run at once")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help='for example "Peregrine bf16"; all if not given')
    parser.add_argument("--path", type=Path, default=ROOT / ".bench" / "falcon-1b", help="where the model is kept")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/compare-*.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
