"""The command line of `peregrine serve`: help, and options that are refused."""

import re
import subprocess
import sys

import pytest

from peregrine_router.launch.command_line import parse_settings
from peregrine_router.settings import Settings

PYTHON_TYPE = re.compile(r"\b(str|int|float|bool|tuple|list|dict|None|null|Literal)\b")


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields.values():
        assert isinstance(field.json_schema_extra, dict)
        monkeypatch.delenv(str(field.json_schema_extra["env"]), raising=False)


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parse_settings(list(argv))
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--port", "99999"], "--port (or PORT): it should be less than or equal to 65535. Given: '99999'"),
        (["--port", "x"], "--port (or PORT): it should be a valid integer"),
        (["--device", "tpu"], "--device (or DEVICE): it should be 'cpu' or 'cuda'. Given: 'tpu'"),
        (
            ["--kv-cache-dtype", "fp8_e5m2"],
            "--kv-cache-dtype (or KV_CACHE_DTYPE): it should be 'fp8_e4m3fn' or 'int8'. Given: 'fp8_e5m2'",
        ),
        (["--nope"], "unrecognized arguments: --nope (see"),
        (["a.gguf"], "unrecognized arguments: a.gguf: give a model as --model-id a.gguf (see"),
        (["--model-id"], "argument --model-id: expected one argument"),
        (
            ["--api-key", ""],
            "--api-key (or API_KEY): it is empty; give it a value or leave the option out. Given: ['']",
        ),
        (["--api-key", " , "], "--api-key (or API_KEY): it is empty; give it a value or leave the option out"),
        (["--cors-allow-origin", ""], "--cors-allow-origin (or CORS_ALLOW_ORIGIN): it is empty"),
        (
            ["--api-key-file", ""],
            "--api-key-file (or API_KEY_FILE): it should have at least 1 character. Given: ''",
        ),
        (["--model-id", ""], "--model-id (or MODEL_ID): it should have at least 1 character. Given: ''"),
        (["--root-path", "http://host/falcon"], "--root-path (or ROOT_PATH): it should match pattern"),
        (["--keep-alive-timeout", "0"], "--keep-alive-timeout (or KEEP_ALIVE_TIMEOUT): it should be greater than or"),
        (["--num-shard", "0"], "`num_shard` cannot be < 1"),
        (["--validation-workers", "0"], "`validation_workers` must be > 0"),
        (["--max-batch-size", "0"], "`max_batch_size` must be > 0"),
        (
            ["--max-input-tokens", "8", "--max-total-tokens", "8"],
            "`max_input_tokens` must be < `max_total_tokens`. Given: 8 and 8",
        ),
        (
            ["--max-batch-prefill-tokens", "9", "--max-batch-total-tokens", "8"],
            "`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. Given: 9 and 8",
        ),
        (
            ["--max-total-tokens", "9", "--max-batch-total-tokens", "8"],
            "`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 9 and 8",
        ),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    """A wrong option is one line on stderr and exit code 2."""
    assert refusal(capsys, *argv).startswith(f"peregrine serve: {message}")


def test_options_are_found_in_any_case() -> None:
    """--PORT is --port."""
    assert parse_settings(["--PORT", "3001", "--Model-Id", "x"]).port == 3001


def test_refusal_from_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong environment variable is one line too, even if its value has a line break."""
    monkeypatch.setenv("MAX_BEST_OF", "ma\nny")
    assert "--max-best-of (or MAX_BEST_OF)" in refusal(capsys)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--help explains every option, with its environment variable and default."""
    with pytest.raises(SystemExit) as stop:
        parse_settings(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert "--" + name.replace("_", "-") in text
        assert field.description is not None
        assert field.description in text
    assert "(default: 3000)" in text


def test_help_names_no_python_type() -> None:
    """--help of the command shows values in field-standard words: choices, PORT, SECONDS, KEY[,KEY...]."""
    command = [sys.executable, "-m", "peregrine_router.cli", "serve", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert PYTHON_TYPE.findall(text) == []
    for shown in (
        "--api-key KEY[,KEY...]",
        "--port PORT",
        "--dtype {float32,bfloat16,float16}",
        "--kv-cache-dtype {fp8_e4m3fn,int8}",
        "--max-best-of N",
        "--slow-client-timeout SECONDS",
        "--payload-limit BYTES",
    ):
        assert shown in text
