"""The end of the line of a server that finds too little memory."""

import shlex
from pathlib import Path

from fakes import train_backend
from gguf_checkpoints import write_gguf
from peregrine_router.hardware import GIB
from peregrine_router.launch.command_line import parse_settings
from peregrine_router.launch.prepare import Prepared, prepare
from peregrine_router.planning.nearest import deployment_of, nearest_that_fits
from peregrine_router.planning.plan import Plan
from serving import failure, free_port


def prepared(*options: str) -> Prepared:
    """The demo, about to be served."""
    found = prepare(parse_settings(["--port", str(free_port()), *options]))
    found.listener.close()
    return found


def test_the_nearest_choice_is_named_by_its_line() -> None:
    """The first of what `peregrine plan` proposes: other weights on the same device."""
    demo = prepared("--device", "cpu", "--max-total-tokens", "64")
    found = nearest_that_fits(demo, Plan.of(deployment_of(demo, GIB)).weight_bytes)
    assert found.startswith("; what fits: peregrine serve --model-id peregrine/falcon-demo --device cpu")
    assert "--quantize int8" in found


def test_quantized_weights_are_named_as_they_are(tmp_path: Path) -> None:
    """A shorter context of a GGUF file, not another format."""
    write_gguf(tmp_path / "falcon.gguf", tokenizer=train_backend(), eos_token_id=0)
    model = prepared("--device", "cpu", "--model-id", str(tmp_path / "falcon.gguf"), "--max-total-tokens", "2000000000")
    found = nearest_that_fits(model, GIB)
    assert found.startswith(
        f"; what fits: peregrine serve --model-id {tmp_path}/falcon.gguf --device cpu --num-shard 1 "
    )
    assert "--max-total-tokens" in found
    assert "--quantize" not in found


def test_nothing_is_said_without_a_reason_or_a_choice() -> None:
    """A shard that failed for another reason, one byte, and memory that is enough add nothing."""
    demo = prepared("--device", "cpu", "--max-total-tokens", "64")
    assert [nearest_that_fits(demo, free) for free in (0, -1, 1, 64 * GIB)] == ["", "", "", ""]


def test_a_server_says_what_fits_before_it_loads() -> None:
    """A request of two billion tokens fits no machine; a shorter one does, and the line that says so is a command."""
    code, (line,) = failure("--device", "cpu", "--max-total-tokens", "2000000000")
    assert code == 1
    assert line.startswith("peregrine: too little memory: ")
    words = shlex.split(line.partition("; what fits: ")[2])
    assert words[:2] == ["peregrine", "serve"]
    assert int(words[words.index("--max-total-tokens") + 1]) < 2_000_000_000
