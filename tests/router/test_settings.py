"""Options from the command line and the environment."""

import pytest
from pydantic import ValidationError

from peregrine_router.settings import Settings, parse_settings


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


def test_defaults() -> None:
    """Without options the demo model is served to this machine alone, within TGI's limits."""
    settings = parse_settings([])
    assert settings.model_id is None
    assert (settings.hostname, settings.port) == ("127.0.0.1", 3000)
    assert (settings.max_concurrent_requests, settings.max_best_of, settings.max_stop_sequences) == (128, 2, 4)
    assert settings.max_total_tokens is None
    assert not settings.json_output


def test_flags() -> None:
    """Flags are TGI's, `-p` included; a switch needs no value."""
    settings = parse_settings(["--model-id", "x", "-p", "0", "--block-size", "16", "--json-output", "--device", "cpu"])
    assert (settings.model_id, settings.port, settings.block_size) == ("x", 0, 16)
    assert settings.json_output
    assert settings.device == "cpu"


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment variables are TGI's; a flag wins over them; an empty one is no value."""
    for name, value in {"PORT": "4000", "MAX_BEST_OF": "3", "JSON_OUTPUT": "true", "NUM_SHARD": ""}.items():
        monkeypatch.setenv(name, value)
    settings = parse_settings(["--port", "5000"])
    assert (settings.port, settings.max_best_of, settings.num_shard, settings.json_output) == (5000, 3, 1, True)


def test_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and origins come by comma, by repeating the flag, or from the environment; keys are not shown."""
    argv = ["--api-key", "a,b", "--api-key", "c", "--cors-allow-origin", "https://x, https://y"]
    settings = parse_settings(argv)
    assert settings.api_key == ("a", "b", "c")
    assert settings.cors_allow_origin == ("https://x", "https://y")
    assert "'a'" not in repr(settings)
    monkeypatch.setenv("API_KEY", "d,e")
    assert parse_settings([]).api_key == ("d", "e")


def test_hostname_of_the_machine_is_not_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOSTNAME, which shells and containers set, does not open the server to the network; PEREGRINE_HOSTNAME does."""
    monkeypatch.setenv("HOSTNAME", "0.0.0.0")
    assert parse_settings([]).hostname == "127.0.0.1"
    monkeypatch.setenv("PEREGRINE_HOSTNAME", "::")
    assert parse_settings([]).hostname == "::"


def test_auto_is_not_set() -> None:
    """`auto` takes an option back to "not set"."""
    assert parse_settings(["--max-total-tokens", "auto"]).max_total_tokens is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--port", "99999"], "--port (or PORT): it should be less than or equal to 65535. Given: '99999'"),
        (["--port", "x"], "--port (or PORT): it should be a valid integer"),
        (["--device", "tpu"], "--device (or DEVICE): it should be 'cpu' or 'cuda'. Given: 'tpu'"),
        (["--nope"], "unrecognized arguments: --nope"),
        (["--model-id"], "argument --model-id: expected one argument"),
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


def test_refusal_from_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """So is a wrong environment variable, even one with a line break."""
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


def test_frozen() -> None:
    """Settings do not change once read."""
    with pytest.raises(ValidationError):
        Settings().port = 1
