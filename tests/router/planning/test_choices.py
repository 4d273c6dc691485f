"""Choices where no format is given, and where nothing fits."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import deployment
from fakes import train_backend
from gguf_checkpoints import write_gguf
from peregrine_router.planning.choices import Choice, all_formats, choose


def chosen(model: str, device: str, **changes: object) -> Choice:
    found = deployment(model, device, **changes)
    return choose(found, all_formats(found.model))


def alternatives(choice: Choice) -> Iterator[tuple[str, int, str | None, str | None, int]]:
    for plan in choice.alternatives:
        each = plan.deployment
        assert plan.fits
        yield each.device.name, each.num_shards, each.quantize, each.kv_cache_dtype, each.max_total_tokens


@pytest.mark.parametrize(
    ("model", "device", "quantize"),
    [
        ("falcon-7b", "a10g", None),
        ("falcon-40b", "h200", None),
        ("falcon-40b", "a100-80g", "int8"),
        ("falcon-40b", "a100-40g", "int4"),
        ("falcon-11b", "a10g", "int8"),
    ],
)
def test_the_first_weights_that_fit_are_taken(model: str, device: str, quantize: str | None) -> None:
    """Unquantized where that fits, else 8 bits before 4."""
    choice = chosen(model, device)
    assert choice.plan.fits
    assert choice.plan.deployment.quantize == quantize
    formats = all_formats(choice.plan.deployment.model)
    assert tuple(each.deployment.quantize for each in choice.rejected) == formats[: len(choice.rejected)]
    assert not any(each.fits for each in choice.rejected)


def test_quantized_weights_stay_as_they_are(tmp_path: Path) -> None:
    """No other format of a GGUF file is proposed, and the line that serves it names none."""
    write_gguf(tmp_path / "falcon.gguf", tokenizer=train_backend())
    choice = chosen(str(tmp_path), "0.63")
    assert not choice.plan.fits
    assert choice.rejected == ()
    assert [*alternatives(choice)] == [("t4", 1, None, None, 2048)]
    assert choice.alternatives[0].deployment.command == f"peregrine serve --model-id {tmp_path} --num-shard 1"
    assert choice.plan.deployment.weights == "gguf"


def test_each_thing_alone_that_would_make_it_fit_is_proposed() -> None:
    """40B in int8 on a card of 40 GB: another format, two cards, or the next larger card."""
    choice = choose(deployment("falcon-40b", "a100-40g"), ["int8"])
    assert not choice.plan.fits
    assert [*alternatives(choice)] == [
        ("a100-40g", 1, "int4", None, 2048),
        ("a100-40g", 2, "int8", None, 2048),
        ("l40s", 1, "int8", None, 2048),
    ]


def test_a_smaller_cache_or_a_shorter_context_is_proposed() -> None:
    """7B on 16 GiB has no room for 300,000 tokens in 16 bits; 8 bits hold them, and 16 bits a shorter request."""
    choice = choose(deployment("falcon-7b", "16", max_total_tokens=300_000), [None])
    found = [*alternatives(choice)]
    assert ("16 GiB", 1, None, "fp8_e4m3fn", 300_000) in found
    shorter = next(tokens for *_, kv_dtype, tokens in found if kv_dtype is None and tokens < 300_000)
    assert choose(deployment("falcon-7b", "16", max_total_tokens=shorter), [None]).plan.fits
    assert not choose(deployment("falcon-7b", "16", max_total_tokens=shorter + 64), [None]).plan.fits


def test_shards_and_format_change_together_where_neither_is_enough() -> None:
    """180B unquantized fits no 16 cards of 16 GB, quantized to 4 bits it fits 8."""
    choice = choose(deployment("falcon-180b", "t4"), [None])
    assert [*alternatives(choice)] == [("t4", 8, "int4", None, 2048)]


def test_a_cpu_is_not_made_larger_by_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share its memory, and no other machine is known."""
    monkeypatch.setattr("peregrine_router.planning.devices.available_memory", lambda: 2**30)
    assert not chosen("falcon-180b", "cpu").alternatives


def test_weights_on_the_host_are_proposed_where_nothing_else_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many GiB as are missing; not where another device would do, nor on a CPU."""
    asked = deployment("falcon-7b", "12")
    assert all(not each.deployment.cpu_offload_gb for each in choose(asked, [None]).alternatives)
    for name, value in (("DEVICES", ()), ("MORE_SHARDS", ()), ("all_formats", lambda model: (None,))):
        monkeypatch.setattr(f"peregrine_router.planning.choices.{name}", value)
    (found,) = choose(asked, [None]).alternatives
    assert found.deployment.cpu_offload_gb == 3
    assert found.fits
    monkeypatch.setattr("peregrine_router.planning.devices.available_memory", lambda: 12 * 2**30)
    assert not choose(deployment("falcon-7b", "cpu"), [None]).alternatives
