"""Operations and bytes of steps."""

from dataclasses import replace

from peregrine_router.hardware import Roof
from peregrine_router.interfaces import EngineStats
from peregrine_router.observability.model_cost import ModelCost

COST = ModelCost(layer_weights=100, head_weights=10, weight_bytes=220, kv_bytes_per_token=3, roof=None)


def test_operations_are_two_a_weight() -> None:
    """Every token passes the layers, every token after which one is sampled the head, drafts both."""
    assert COST.flops(EngineStats(step_tokens=7, generated_tokens=2)) == 2 * (7 * 100 + 2 * 10)
    # Two steps with three drafts together, of which two were right: five rows, four tokens.
    stats = EngineStats(step_tokens=2, draft_tokens=3, accepted_tokens=2, generated_tokens=4)
    assert COST.flops(stats) == 2 * (5 * 100 + 5 * 10)


def test_bytes_are_weights_and_context() -> None:
    """Every step reads all weights, and the keys and values of its sequences."""
    assert COST.num_bytes(EngineStats(steps=4, context_tokens=50)) == 4 * 220 + 50 * 3


def test_peaks_are_shown_only_where_they_are_known() -> None:
    """Without them there is nothing to divide by."""
    names = {family.name for family in COST.collect(EngineStats())}
    assert names == {"peregrine_model_flops", "peregrine_model_bytes"}


def test_least_time_is_the_longer_of_reading_and_multiplying() -> None:
    """One step of one token reads 220 + 3 * 10 bytes and does 2 * 110 operations; none is known without peaks."""
    stats = EngineStats(steps=1, step_tokens=1, generated_tokens=1, context_tokens=10)
    assert replace(COST, roof=Roof(100.0, 1e6)).least_seconds(stats) == 2.5
    assert replace(COST, roof=Roof(1e6, 100.0)).least_seconds(stats) == 2.2
    assert COST.least_seconds(stats) is None
