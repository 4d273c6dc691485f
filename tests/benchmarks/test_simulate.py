"""The real scheduler under modelled time."""

from collections.abc import Collection

import pytest
from benchmarks.arrivals import Arrival, Day
from benchmarks.hardware import DEVICES, FALCON_1B, FALCON_7B, FALCON_40B, Device, load_seconds, step_seconds
from benchmarks.simulate import Limits, Simulation

from peregrine_router.scheduling.fair_queue import FairQueue
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.sequence import Sequence

SLOW = Device("slow", bytes_per_second=1e9, flops_per_second=1e12, memory_bytes=16e9, overhead=0.001)
DAY = Day(mean_rate=2.0, seconds=60.0, bursts=2, seed=5)


def test_a_day_is_a_function_of_its_seed() -> None:
    """In order, within the day, within the model's length."""
    arrivals = DAY.arrivals()
    assert arrivals == DAY.arrivals()
    assert [a.at for a in arrivals] == sorted(a.at for a in arrivals)
    assert all(0 <= a.at < 60 and a.prompt_tokens + a.new_tokens <= 2048 for a in arrivals)


def test_the_afternoon_is_busy_and_bursts_are_busier() -> None:
    """Highest at 15:00, lowest at 3:00."""
    day = Day(mean_rate=1.0)
    assert day.rate(15 * 3600, []) == pytest.approx(1.8)
    assert day.rate(3 * 3600, []) == pytest.approx(0.2)
    assert day.rate(15 * 3600, [15 * 3600 - 1]) == pytest.approx(7.2)


def test_a_step_takes_the_longer_of_bytes_and_operations() -> None:
    """One decode reads every weight; many tokens compute."""
    weights = FALCON_1B.weight_bytes / 1e9
    assert step_seconds(SLOW, FALCON_1B, 1, 1, 0) == pytest.approx(weights + 0.001)
    assert step_seconds(SLOW, FALCON_1B, 10_000, 1, 0) == pytest.approx(FALCON_1B.flops(10_000, 1) / 1e12 + 0.001)


@pytest.mark.parametrize(("model", "billions"), [(FALCON_1B, 1.15), (FALCON_7B, 6.92), (FALCON_40B, 41.3)])
def test_the_models_have_their_published_sizes(model, billions: float) -> None:  # type: ignore[no-untyped-def]
    """The embedding, tied to the head, counts once."""
    assert (model.layer_parameters + model.head_parameters) / 1e9 == pytest.approx(billions, rel=0.01)


def test_a_shared_prefix_is_computed_once_at_best() -> None:
    """The bound of a load is what a perfect server would take."""
    requests = [(100, 1)] * 4
    apart, shared = load_seconds(SLOW, FALCON_1B, requests), load_seconds(SLOW, FALCON_1B, requests, shared_prefix=50)
    assert apart - shared == pytest.approx(FALCON_1B.flops(150, 0) / SLOW.flops_per_second)


def test_every_request_ends_with_its_tokens_and_two_runs_agree() -> None:
    """The scheduler decides, the clock is a model: nothing is random."""
    arrivals = DAY.arrivals()
    runs = [Simulation(DEVICES[0], FALCON_7B, Limits(256, 16)).run(arrivals) for _ in range(2)]
    assert runs[0] == runs[1]
    assert [len(answer.token_times) for answer in runs[0]] == [arrival.new_tokens for arrival in arrivals]
    assert all(answer.token_times[0] > arrival.at for answer, arrival in zip(runs[0], arrivals, strict=True))


def test_a_smaller_step_budget_keeps_other_streams_waiting_less() -> None:
    """A long prompt beside a stream: the case for chunked prefill."""
    arrivals = [Arrival(0.0, 8, 60), Arrival(1.0, 1900, 8)]

    def longest_gap(budget: int) -> float:
        stream, _ = Simulation(DEVICES[0], FALCON_7B, Limits(budget, 8)).run(arrivals)
        return max(b - a for a, b in zip(stream.token_times, stream.token_times[1:], strict=False))

    assert longest_gap(128) < longest_gap(2048) / 4


def test_a_full_cache_preempts_and_still_ends() -> None:
    """With few blocks requests get the same tokens, later."""
    simulation = Simulation(DEVICES[0], FALCON_7B, Limits(256, 8), num_blocks=6)
    answers = simulation.run([Arrival(0.0, 40, 150) for _ in range(4)])
    assert simulation.scheduler.num_preemptions > 0
    assert [len(answer.token_times) for answer in answers] == [150] * 4


def test_a_model_that_does_not_fit_is_refused() -> None:
    """The error says what to do."""
    with pytest.raises(ValueError, match="simulate a larger device"):
        Simulation(DEVICES[0], FALCON_40B, Limits(256, 8))


class NewestFirst(FairPolicy):
    """The default, but the newest request is next; requests are named by their arrival."""

    def __init__(self, max_batch_size: int, lead: int) -> None:
        super().__init__(max_batch_size, lead, waiting=Newest())


class Newest(FairQueue[Sequence]):
    """A queue whose newest request is next."""

    def peek(self, exclude: Collection[str] = ()) -> Sequence | None:
        """The request that came last."""
        return max(self, key=lambda sequence: int(sequence.request.id), default=None)


def test_scheduling_policies_can_be_compared() -> None:
    """The same arrivals, one served at a time: under another policy another one is first."""
    arrivals = [Arrival(0.0, 8, 4) for _ in range(3)]
    ends = [
        [answer.end for answer in Simulation(SLOW, FALCON_1B, Limits(64, 1), make_policy=policy).run(arrivals)]
        for policy in (FairPolicy, NewestFirst)
    ]
    assert ends[0] == sorted(ends[0])
    assert ends[1] == ends[0][::-1]
