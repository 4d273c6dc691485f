"""A plan's words and its JSON."""

from scripts.plan_page import PAGE, renewed

from deployments import deployment
from peregrine_router.launch.memory_lines import memory_lines
from peregrine_router.planning.choices import choose
from peregrine_router.planning.report import as_json, as_text


def test_the_page_is_current() -> None:
    """`python -m scripts.plan_page` renews it."""
    assert PAGE.read_text() == renewed(PAGE.read_text())


def test_the_rows_add_up_to_the_memory() -> None:
    """Rounding aside; the last row is the device's memory."""
    lines = as_text(choose(deployment("falcon-7b", "l4"), [None])).splitlines()
    rows = [float(line[26:35]) for line in lines[4:11]]
    assert sum(rows[:-1]) == rows[-1] or abs(sum(rows[:-1]) - rows[-1]) < 0.05
    assert lines[10].startswith("memory ")


def test_what_is_missing_is_what_a_request_needs() -> None:
    """A device with that much more would be enough."""
    choice = choose(deployment("falcon-180b", "a10g"), ["int8"])
    missing = choice.plan.needed_bytes - choice.plan.deployment.device.memory_bytes
    assert f"missing                   {missing / 1e9:9.2f}" in as_text(choice)


def test_the_words_end_with_the_line_that_serves_and_what_it_says() -> None:
    """As start-up prints them."""
    plan = (choice := choose(deployment("falcon-40b", "a100-80g"), (None, "int8"))).plan
    foretold = memory_lines(plan.weight_bytes, plan.kv_tokens, plan.kv_bytes_per_token, None)
    assert as_text(choice).splitlines()[-5:] == [plan.deployment.command, "", "At its start it says:", *foretold]


def test_no_line_is_too_long() -> None:
    """But for commands, which are to be copied whole."""
    for device in ("a100-80g", "a10g", "cpu", "8"):
        for line in as_text(choose(deployment("falcon-40b-instruct", device), (None, "int4"))).splitlines():
            assert len(line) <= 120 or "peregrine serve" in line, line


def test_json_has_the_numbers() -> None:
    """Bytes are of all shards where the server's start-up adds them up."""
    choice = choose(deployment("falcon-40b", "a100-80g", num_shards=2), [None])
    found = as_json(choice)
    assert (found["fits"], found["num_shard"], found["quantize"]) == (True, 2, None)
    assert found["weights_bytes"] == 2 * choice.plan.footprint.weight_bytes
    assert found["kv_bytes_per_token"] == 122_880
    assert found["kv_tokens"] == choice.plan.num_blocks * 64
    assert found["command"] == "peregrine serve --model-id tiiuae/falcon-40b --num-shard 2"


def test_json_has_what_fits_instead() -> None:
    """Each alternative as the plan itself."""
    found = as_json(choose(deployment("falcon-40b", "a100-40g"), ["int8"]))
    assert not found["fits"]
    assert found["needed_bytes"] > found["memory_bytes"]
    assert [each["fits"] for each in found["alternatives"]] == [True] * 3


def test_weights_on_the_host_have_a_row_and_bytes() -> None:
    """Below the device's own memory."""
    choice = choose(deployment("falcon-7b", "t4", cpu_offload_gb=4.0), [None])
    facts = as_json(choice)
    assert facts["cpu_offload_gb"] == 4.0
    assert f"weights on the host       {facts['host_bytes'] / 1e9:9.2f}" in as_text(choice)
    assert "with 1 request" in as_text(choice)
