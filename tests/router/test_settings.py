"""Options from the command line and the environment."""

import pytest
from pydantic import ValidationError

from peregrine_router.launch.command_line import parse_settings
from peregrine_router.settings import Settings
from peregrine_server.structured.compiler import MAX_GRAMMAR_BYTES


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields.values():
        assert isinstance(field.json_schema_extra, dict)
        monkeypatch.delenv(str(field.json_schema_extra["env"]), raising=False)


def test_defaults() -> None:
    """Without options the demo model is served to this machine alone, within TGI's limits."""
    settings = parse_settings([])
    assert settings.model_id is None
    assert (settings.hostname, settings.port) == ("127.0.0.1", 3000)
    assert (settings.max_concurrent_requests, settings.max_best_of, settings.max_stop_sequences) == (128, None, 4)
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
    assert (settings.port, settings.max_best_of, settings.num_shard, settings.json_output) == (5000, 3, None, True)


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


def test_no_option_takes_a_grammar_that_no_stack_would_do_for(capsys: pytest.CaptureFixture[str]) -> None:
    """The compiler's limit is the option's default and its bound, so that there is no second limit behind it."""
    assert parse_settings([]).max_grammar_length == MAX_GRAMMAR_BYTES
    with pytest.raises(SystemExit):
        parse_settings(["--max-grammar-length", str(MAX_GRAMMAR_BYTES + 1)])
    assert "--max-grammar-length" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "expected"), [("WARN", "warning"), ("trace", "debug"), ("Info", "info")])
def test_levels_in_tgis_words(given: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """LOG_LEVEL of a deployment of TGI works, in any case."""
    monkeypatch.setenv("LOG_LEVEL", given)
    assert parse_settings([]).log_level == expected


@pytest.mark.parametrize("option", [("--log-level", "loud"), ("--otlp-endpoint", "localhost:4317")])
def test_a_wrong_log_or_trace_option_is_told(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the option's name, instead of a server without traces."""
    with pytest.raises(SystemExit):
        parse_settings(list(option))
    assert option[0] in capsys.readouterr().err


def test_frozen() -> None:
    """Settings do not change once read."""
    with pytest.raises(ValidationError):
        Settings().port = 1


@pytest.mark.parametrize(("name", "value"), [("API_KEY", ""), ("API_KEY", ","), ("API_KEY_FILE", "")])
def test_an_empty_key_is_no_open_server(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that a deployment failed to fill is refused: the operator meant to close the server."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        parse_settings([])
    assert f"(or {name}): it " in capsys.readouterr().err
