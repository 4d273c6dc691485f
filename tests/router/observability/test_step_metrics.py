"""How the shards' steps are counted and timed."""

from exposition import parse_metrics
from fakes import INFO
from peregrine_router.observability.metrics import PHASES, Metrics
from peregrine_router.observability.step_metrics import StepMetrics
from peregrine_server.protocol import NewSequence, SamplingParams, Step, StepResult, pack


def test_steps_are_measured() -> None:
    """Steps are counted by what they compute and timed until their result."""
    metrics = Metrics(INFO)
    observer, decode, prefill = StepMetrics(metrics), pack([0, 1]), pack([0, 1, 2])
    new = [NewSequence(2, pack([1]), 1, SamplingParams())]
    for step in (
        Step(id=1, slots=decode, num_decodes=2),
        Step(id=2, slots=prefill, num_decodes=2, num_tokens=pack([1]), new=new),
    ):
        observer.sent(step)
        observer.answered(step, StepResult(step.id, b"", b"", b""), 0.5)
    series = parse_metrics(metrics.render().decode())
    assert series['tgi_batch_inference_count{method="prefill"}'] == 1.0
    assert series['tgi_batch_inference_success{method="decode"}'] == 1.0
    assert series['tgi_batch_forward_duration_count{method="decode"}'] == 1.0
    assert series['tgi_batch_forward_duration_sum{method="decode"}'] == 0.5
    assert series['tgi_batch_concat{reason="chunking"}'] == 1.0
    assert series["tgi_batch_next_size_sum"] == 1.0
    observer.failed(Step(id=3, slots=decode, num_decodes=2))
    assert 'tgi_batch_inference_failure{method="decode"} 1.0' in metrics.render().decode()


def test_the_routers_part_of_a_step_is_split() -> None:
    """Scheduling, waiting and delivering are timed apart."""
    metrics = Metrics(INFO)
    observer = StepMetrics(metrics)
    for seconds, phase in enumerate(PHASES, 1):
        observer.spent(phase, seconds)
    series = parse_metrics(metrics.render().decode())
    sums = [series[f'peregrine_step_phase_seconds_sum{{phase="{phase}"}}'] for phase in PHASES]
    assert sums == [1.0, 2.0, 3.0]


def test_slots_that_repeat_are_several_tokens() -> None:
    """A step's two sequences, one of which gained three tokens, are two observations."""
    metrics = Metrics(INFO)
    step = Step(id=1, slots=pack([4, 2]), num_decodes=2, max_draft_tokens=2)
    StepMetrics(metrics).answered(step, StepResult(1, pack([4, 4, 4, 2]), b"", b""), 0.5)
    lines = metrics.render().decode().splitlines()
    assert "tgi_request_skipped_tokens_sum 2.0" in lines
    assert "tgi_request_skipped_tokens_count 2.0" in lines
